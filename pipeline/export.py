"""Runs one export: rows in, one finished object and its manifest out."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime

from config.errors import Cancelled, Unavailable
from config.metrics import Metrics
from pipeline.compress import CODECS, Codec
from pipeline.encode import FORMATS
from pipeline.encode.options import EncodeOptions
from pipeline.manifest import CONTENT_TYPE, manifest, manifest_key
from pipeline.metering import Checksum, Stages, Tally, counted
from pipeline.prefetch import ahead
from pipeline.read import Table, open_table
from pipeline.read.connections import Sources
from pipeline.spec import ExportSpec
from pipeline.storage.types import Storage
from pipeline.types import ExportResult, Progress
from pipeline.watch import watch

# What packs itself packs unless it is asked not to.
_PACKED_BY_DEFAULT = "zstd"


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def export(  # noqa: PLR0913 (where rows come from and go to, who watches, and the clock)
    spec: ExportSpec,
    sources: Sources,
    storage: Storage,
    progress: Progress,
    metrics: Metrics,
    *,
    fence: Callable[[], None],
    clock: Callable[[], datetime] = utc_now,
) -> ExportResult:
    """Export what `spec` asks for, and return what was stored under its key; the manifest is beside it.

    `fence` is called right before the object becomes visible, and raises Cancelled if it must not. Raises Rejected,
    Unavailable or Cancelled (also after `progress.stop`), and then leaves nothing behind.
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
    """Do as `export` does with a table that is open already."""
    form, codec, options = FORMATS[spec.format], _codec(spec), _options(spec)
    stages, raw, stored, checksum = Stages(metrics), Tally(), Tally(), Checksum()
    progress.stages = stages.seconds
    batches = watch(stages.timed("read", table.batches), progress, spec.export_id)
    enriched = stages.timed("enrich", table.enrich(batches))
    file = storage.open(spec.key, content_type_of(spec), spec.attempt)
    beside = storage.open(manifest_key(spec.key), CONTENT_TYPE, spec.attempt)
    progress.on_stop(file.interrupt)
    progress.on_stop(beside.interrupt)
    # Both are entered before the fence: what another attempt puts there afterwards is then seen by them.
    with closing(ahead(enriched)) as ready, counted(file, metrics) as upload, beside as description:
        encoded = stages.timed("encode", form.encode(table.columns, stages.timed("wait", ready), options))
        compressed = stages.timed("compress", codec.compress(raw.counted(encoded)))
        with closing(ahead(compressed)) as chunks:
            for chunk in stages.timed("checksum", checksum.summed(stored.counted(stages.timed("idle", chunks)))):
                with stages.spent("upload"):
                    upload.write(chunk)
                progress.bytes = stored.bytes
        fence()
        result = ExportResult(
            key=spec.key,
            rows=progress.rows,
            raw_bytes=raw.bytes,
            bytes=stored.bytes,
            sha256=checksum.hex,
            truncated=table.truncated,
            columns=tuple(column.name for column in table.columns),
            cutoff=spec.created_at,
        )
        with stages.spent("upload"), _both_or_none(spec, storage):
            upload.finish()
            description.write(manifest(spec, result, options.compression, clock()))
            description.finish()
    return result


def content_type_of(spec: ExportSpec) -> str:
    """Return the media type of the export's file, as stored and as links serve it."""
    return _codec(spec).content_type or FORMATS[spec.format].content_type


def _codec(spec: ExportSpec) -> Codec:
    return CODECS["none" if FORMATS[spec.format].packs_itself else spec.query.compression]


def _options(spec: ExportSpec) -> EncodeOptions:
    unasked = "compression" not in spec.query.model_fields_set
    if unasked and FORMATS[spec.format].packs_itself:
        return EncodeOptions(_PACKED_BY_DEFAULT, spec.csv_neutralise)
    return EncodeOptions(spec.query.compression, spec.csv_neutralise)


@contextmanager
def _both_or_none(spec: ExportSpec, storage: Storage) -> Iterator[None]:
    """Take back a file that can't have a manifest, unless a later attempt has replaced it."""
    try:
        yield
    except (Unavailable, Cancelled):
        with suppress(Unavailable):
            storage.delete(spec.key, spec.attempt)
        raise
