"""Watches rows go by: counts them, says how far it is, and stops when the export is."""

import logging
from collections.abc import Iterator

import pyarrow as pa

from config.errors import Cancelled
from pipeline.types import Progress

logger = logging.getLogger(__name__)

OFTEN = 5_000
SELDOM = 100_000


def watch(batches: Iterator[pa.RecordBatch], progress: Progress, export_id: str) -> Iterator[pa.RecordBatch]:
    """Yield the batches, adding their rows to `progress`; raises Cancelled once it is stopped."""
    for batch in batches:
        if progress.stopped:
            raise Cancelled
        before = progress.rows
        progress.rows += batch.num_rows
        if before // OFTEN != progress.rows // OFTEN:
            level = logging.INFO if before // SELDOM != progress.rows // SELDOM else logging.DEBUG
            logger.log(level, "%d rows read", progress.rows, extra={"export_id": export_id, "rows": progress.rows})
        yield batch
