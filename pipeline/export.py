"""Runs one export: rows in, one finished object and its manifest out."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from config.metrics import Metrics
from pipeline.batches import BATCH_BYTES, limit_sizes, rebatch
from pipeline.compress import COMPRESSORS
from pipeline.encode import ENCODERS
from pipeline.export_file import open_file
from pipeline.ignored_keys import describe_names
from pipeline.manifest import make_manifest
from pipeline.metering import Flow
from pipeline.progress import Progress, watch
from pipeline.read import Table, open_table
from pipeline.read.connections import Sources
from pipeline.spec import ExportSpec
from pipeline.storage.types import Storage
from pipeline.types import ExportResult

logger = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def export(  # noqa: PLR0913 (the source, the target, the observers and the clock)
    spec: ExportSpec,
    sources: Sources,
    storage: Storage,
    progress: Progress,
    metrics: Metrics,
    *,
    fence: Callable[[], None],
    clock: Callable[[], datetime] = utc_now,
) -> ExportResult:
    """Export the rows that `spec` selects, and return the result; the file is stored under the spec's key.

    Its manifest is stored beside it. `fence` is called right before the object becomes visible, and before it is
    removed after a failure; it raises Cancelled if neither may happen. Raises Rejected, Unavailable or Cancelled (also
    after `progress.stop`), and leaves nothing behind then, except what the fence forbids to remove.
    """
    with open_table(spec, sources, progress) as table:
        return deliver(spec, table, storage, progress, metrics, fence=fence, clock=clock)


def deliver(  # noqa: PLR0913 (as `export`)
    spec: ExportSpec,
    table: Table,
    storage: Storage,
    progress: Progress,
    metrics: Metrics,
    *,
    fence: Callable[[], None],
    clock: Callable[[], datetime] = utc_now,
) -> ExportResult:
    """Do as `export` does with a table that is already open."""
    encoding = spec.encoding
    _warn_of_ignored_keys(spec)
    # The flow is left first: its threads end before the uploads are aborted.
    with open_file(spec, storage, progress, metrics) as file, Flow(metrics) as flow:
        progress.stages = flow.seconds
        batches = flow.stage("read", rebatch(table.batches, BATCH_BYTES))
        batches = watch(batches, progress, spec.export_id)
        batches = table.enrich(batches)
        batches = limit_sizes(batches, BATCH_BYTES, spec.output.row_bytes, table.id_place)
        batches = flow.stage("enrich", batches)
        batches = flow.prefetch("wait", batches)
        chunks = flow.stage("encode", ENCODERS[encoding.format.name](table.columns, batches, encoding))
        chunks = flow.stage("compress", COMPRESSORS[encoding.codec.name](flow.raw.count(chunks)))
        chunks = flow.prefetch("idle", chunks)
        chunks = flow.stage("checksum", flow.checksum.add(flow.stored.count(chunks)))
        for chunk in chunks:
            with flow.charge("upload"):
                file.write(chunk)
            progress.bytes = flow.stored.bytes
        result = _make_result(spec, table, progress, flow)
        _warn_of_null_columns(result, spec.export_id)
        with flow.charge("upload"):
            file.commit(lambda: make_manifest(spec, result, clock()), fence)
    return result


def _warn_of_ignored_keys(spec: ExportSpec) -> None:
    if spec.ignored:
        names = describe_names(spec.ignored)
        logger.warning("ignored unknown keys of the query: %s", names, extra={"export_id": spec.export_id})


def _warn_of_null_columns(result: ExportResult, export_id: str) -> None:
    if result.null_columns:
        names = ", ".join(result.null_columns)
        logger.warning(
            "columns missing in this Langfuse version are null in the file: %s", names, extra={"export_id": export_id}
        )


def _make_result(spec: ExportSpec, table: Table, progress: Progress, flow: Flow) -> ExportResult:
    return ExportResult(
        key=spec.key,
        rows=progress.rows,
        raw_bytes=flow.raw.bytes,
        bytes=flow.stored.bytes,
        sha256=flow.checksum.hex,
        truncated=table.truncated,
        columns=tuple(column.name for column in table.columns),
        cutoff=spec.created_at,
        ignored=spec.ignored,
        null_columns=tuple(sorted(table.null_columns)),
    )
