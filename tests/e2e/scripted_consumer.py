"""Launches the consumer with a pipeline that follows the export's id: `sleep-5-x`, `reject-x`, `fail-2-x`, …"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from functools import partial

from cli import build
from config.errors import Cancelled, Rejected, Unavailable
from config.metrics import Metrics
from config.settings import CONSUMER_NEEDS, load
from consumer.app import Dependencies, run
from pipeline.object_key import manifest_key
from pipeline.progress import Progress
from pipeline.read.connections import Sources
from pipeline.spec import ExportSpec
from pipeline.storage import Storage
from pipeline.types import ExportResult
from runtime import logs
from runtime.self_metrics import build_metrics


def scripted(
    spec: ExportSpec,
    sources: Sources,  # noqa: ARG001 (the pipeline's signature)
    storage: Storage,
    progress: Progress,
    metrics: Metrics,  # noqa: ARG001 (the pipeline's signature)
    *,
    fence: Callable[[], None],
) -> ExportResult:
    """Do what the id says, and store the number of the attempt as the file."""
    verb, _dash, rest = spec.export_id.partition("-")
    if verb == "reject":
        raise Rejected("The column 'x' is unknown.")
    if verb == "bug":
        raise LookupError("a bug")
    if verb == "fail" and spec.attempt <= int(rest.partition("-")[0]):
        raise Unavailable("the source is unavailable")
    data = f"attempt {spec.attempt}".encode()
    beside = storage.open(manifest_key(spec.key), "application/json", spec.attempt)
    with storage.open(spec.key, "text/csv", spec.attempt) as upload, beside as description:
        upload.write(data)
        progress.rows, progress.bytes = 1, len(data)
        if verb == "sleep":
            _sleep(float(rest.partition("-")[0]), progress)
        fence()
        upload.finish()
        description.write(b"{}")
        description.finish()
    return ExportResult(
        key=spec.key,
        rows=1,
        raw_bytes=len(data),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        truncated=False,
        columns=("attempt",),
        cutoff=spec.created_at,
    )


def _sleep(seconds: float, progress: Progress) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if progress.stopped:
            raise Cancelled
        time.sleep(0.02)


def main() -> None:
    settings = load(needs=CONSUMER_NEEDS)
    logs.set_up_logging(settings.log_format, settings.log_level)
    jobs = build.jobs(settings)
    checks = build.checks(settings, jobs.engine)
    publisher = build.publisher(settings)
    parts = Dependencies(
        jobs=jobs,
        sources=build.sources(settings, jobs.engine),
        storage=build.storage(settings),
        publisher=publisher,
        metrics=build_metrics(),
        export=scripted,
        checks={name: checks[name] for name in ("database", "storage", "kafka")},
        operator_routes=partial(build.operator_routes, settings, jobs, publisher),
    )
    asyncio.run(run(settings, parts))


if __name__ == "__main__":
    main()
