"""Repairs the text of record batches, and cuts and joins batches to a size in bytes."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from config.errors import Rejected

BATCH_BYTES = 6 << 20
"""The most bytes of a batch that is enriched and encoded, unless it is a single row."""

MOST_ENRICHED = 4
"""A batch that enriching makes more than this many times as large as BATCH_BYTES is cut again."""

MOST_CELLS = 5_000_000
"""A batch is enriched to this many cells at most: columns of scores take four bytes for each, also if it is null."""


def repair(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the batches with valid UTF-8 only; invalid bytes become U+FFFD, because text files can't hold them."""
    for batch in batches:
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid:
            arrays = [_repair_array(array) for array in batch.columns]
            yield pa.RecordBatch.from_arrays(arrays, schema=batch.schema)
        else:
            yield batch


def _repair_array(array: pa.Array) -> pa.Array:
    """Replace invalid UTF-8 in texts, also inside lists and structs; other values stay."""
    if pa.types.is_string(array.type):
        texts = [
            None if each is None else each.decode(errors="replace") for each in array.view(pa.binary()).to_pylist()
        ]
        return pa.array(texts, pa.string())
    if pa.types.is_list(array.type):
        offsets = pc.add(array.offsets, 0)  # a copy, because no constructor takes the offsets of a slice
        return pa.ListArray.from_arrays(offsets, _repair_array(array.values), type=array.type, mask=_mask(array))
    if pa.types.is_struct(array.type):
        children = [_repair_array(array.field(index)) for index in range(array.type.num_fields)]
        return pa.StructArray.from_arrays(children, fields=list(array.type), mask=_mask(array))
    return array


def _mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def rebatch(batches: Iterator[pa.RecordBatch], target: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of at most `target` bytes; a larger row comes alone.

    So memory does not depend on how the source cuts its rows. Large batches are cut, which copies nothing. Small ones
    are joined, because each batch has a fixed cost in every stage.
    """
    gathered: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        for piece in _cut_batch(batch, target):
            if held and held + piece.nbytes > target:
                yield _join(gathered)
                gathered, held = [], 0
            gathered.append(piece)
            held += piece.nbytes
    if gathered:
        yield _join(gathered)


def limit_cells(batches: Iterator[pa.RecordBatch], columns: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches of at most MOST_CELLS cells in that number of columns. Nothing is copied."""
    rows = max(1, MOST_CELLS // max(1, columns))
    for batch in batches:
        for start in range(0, max(1, batch.num_rows), rows):
            yield batch.slice(start, rows)


def limit_sizes(
    batches: Iterator[pa.RecordBatch], target: int, row_bytes: int, id_place: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of enriched batches, and cut the batches that enriching made much larger than `target` bytes.

    Raises Rejected for a row of more than `row_bytes`; `id_place` is the place of the column with its ID. Nothing is
    copied.
    """
    most = min(MOST_ENRICHED * target, row_bytes)  # a row of more than `row_bytes` then comes alone
    for batch in batches:
        for piece in _cut_batch(batch, most):
            if piece.num_rows == 1 and piece.nbytes > row_bytes:
                raise make_large_row_error(str(piece.column(id_place)[0]), row_bytes)
            yield piece


def make_large_row_error(row_id: str, most: int) -> Rejected:
    """Make the error for a row of more than `most` bytes."""
    return Rejected(
        f"The row with the ID {row_id[:200]!r} is too large: a row can have up to {most >> 20} MiB. Exclude it with a "
        "filter, or ask your administrator to raise WAYBILL_MAX_ROW_MIB."
    )


def _cut_batch(batch: pa.RecordBatch, target: int) -> Iterator[pa.RecordBatch]:
    """Halve the batch until each piece fits, because rows differ too much in size to cut by their number."""
    if batch.num_rows <= 1 or batch.nbytes <= target:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from _cut_batch(batch.slice(0, middle), target)
    yield from _cut_batch(batch.slice(middle), target)


def _join(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
