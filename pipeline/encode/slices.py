"""Cuts and joins record batches to a size in bytes, so that memory does not depend on how rows arrive."""

from collections.abc import Iterator

import pyarrow as pa


def sized(batches: Iterator[pa.RecordBatch], target: int, added: int = 0) -> Iterator[pa.Table]:
    """Yield the same rows in tables of about `target` bytes; a row that is larger comes alone.

    Each row counts `added` bytes more than it has, or fewer, where it is written in another size. Large batches are
    cut, which copies nothing; small ones are gathered, so that each has a bounded share of the encoders' fixed costs.
    Batches without rows are dropped.
    """
    gathered: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        for piece in _cut(batch, target, added):
            size = _size(piece, added)
            if held and held + size > target:
                yield pa.Table.from_batches(gathered)
                gathered, held = [], 0
            gathered.append(piece)
            held += size
    if gathered:
        yield pa.Table.from_batches(gathered)


def _cut(batch: pa.RecordBatch, target: int, added: int) -> Iterator[pa.RecordBatch]:
    """Halve until a piece fits: rows differ too much in size to cut by their number."""
    if batch.num_rows == 0:
        return
    if batch.num_rows == 1 or _size(batch, added) <= target:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from _cut(batch.slice(0, middle), target, added)
    yield from _cut(batch.slice(middle), target, added)


def _size(batch: pa.RecordBatch, added: int) -> int:
    size: int = batch.nbytes + batch.num_rows * added
    return size
