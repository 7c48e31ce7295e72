"""Brings record batches into shape: valid text, a size worth working on, no more than the row limit."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

WORTH_WORKING_ON = 3 << 20
"""Bytes; smaller batches are joined, for each costs every stage its fixed price."""


def repaired(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches with all text valid UTF-8; what is not becomes U+FFFD, for files of text can't carry it."""
    for batch in batches:
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid:
            arrays = [_valid(array) for array in batch.columns]
            yield pa.RecordBatch.from_arrays(arrays, schema=batch.schema)
        else:
            yield batch


def _valid(array: pa.Array) -> pa.Array:
    """Replace what is not UTF-8, wherever in nested lists and structs it is; values that are not text stay."""
    if pa.types.is_string(array.type):
        texts = [
            None if each is None else each.decode(errors="replace") for each in array.view(pa.binary()).to_pylist()
        ]
        return pa.array(texts, pa.string())
    if pa.types.is_list(array.type):
        offsets = pc.add(array.offsets, 0)  # a copy: those of a slice are taken by no constructor
        return pa.ListArray.from_arrays(offsets, _valid(array.values), type=array.type, mask=_mask(array))
    if pa.types.is_struct(array.type):
        children = [_valid(array.field(index)) for index in range(array.type.num_fields)]
        return pa.StructArray.from_arrays(children, fields=list(array.type), mask=_mask(array))
    return array


def _mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches of at least `WORTH_WORKING_ON`, but for the last."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= WORTH_WORKING_ON:
            yield held[0] if len(held) == 1 else pa.concat_batches(held)
            held, size = [], 0
    if held:
        yield held[0] if len(held) == 1 else pa.concat_batches(held)
