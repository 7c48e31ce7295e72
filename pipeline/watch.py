"""Counts rows, logs how far an export is, and stops it when it is cancelled."""

import logging
from collections.abc import Iterator

import pyarrow as pa

from config.errors import Cancelled
from pipeline.types import Progress

logger = logging.getLogger(__name__)

DEBUG_ROWS = 5_000
INFO_ROWS = 100_000


def watch(batches: Iterator[pa.RecordBatch], progress: Progress, export_id: str) -> Iterator[pa.RecordBatch]:
    """Yield the batches and add their rows to `progress`; raises Cancelled once `progress` is stopped."""
    for batch in batches:
        if progress.stopped:
            raise Cancelled
        before = progress.rows
        progress.rows += batch.num_rows
        if before // DEBUG_ROWS != progress.rows // DEBUG_ROWS:
            level = logging.INFO if before // INFO_ROWS != progress.rows // INFO_ROWS else logging.DEBUG
            logger.log(level, "%d rows read", progress.rows, extra={"export_id": export_id, "rows": progress.rows})
        yield batch
