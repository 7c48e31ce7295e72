"""A worker whose pipeline is scripted by the test, with a job store and a local folder."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from config.labels import Outcome
from config.metrics import Metrics
from consumer.attempt import ExportPolicy, WorkerContext, run_attempt
from consumer.job_store import Jobs
from consumer.models import Claim
from consumer.row_url import LinkPolicy
from pipeline.object_key import manifest_key
from pipeline.progress import Progress
from pipeline.read.connections import ClickHouse, Sources
from pipeline.spec import ExportSpec
from pipeline.storage import Storage
from pipeline.storage.local import LocalStorage
from pipeline.types import ExportResult, OutputOptions
from runtime.retry import Backoff
from runtime.tracing import Tracer
from tests.support.exports import CLAIM_POLICY, LEASE, NOW, result_of

EXPORT_POLICY = ExportPolicy(
    output=OutputOptions(prefix="exports/"),
    links=LinkPolicy(lifetime=timedelta(hours=24)),
    max_attempts=3,
    backoff=Backoff(first=5),
    lease=LEASE,
)


class ScriptedWorker:
    """Runs attempts on a real job store and a local folder; `before` and `raises` script the pipeline."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.jobs = Jobs(engine, CLAIM_POLICY)
        self.storage = LocalStorage(folder)
        self.folder = folder
        self.metrics = Metrics(CollectorRegistry())
        self.policy = EXPORT_POLICY
        self.tracer = Tracer()
        self.fenced = False
        self.time = NOW
        self.before: Callable[[], None] = lambda: None
        self.raises: Exception | None = None

    def export(  # the pipeline's signature
        self,
        spec: ExportSpec,
        sources: Sources,  # noqa: ARG002
        storage: Storage,
        progress: Progress,
        metrics: Metrics,  # noqa: ARG002
        *,
        fence: Callable[[], None],
    ) -> ExportResult:
        self.before()
        if self.raises is not None:
            raise self.raises
        if self.fenced:
            fence()
        progress.stages = {"read": 0.5, "upload": 0.25}
        for key, data in ((spec.key, b"data"), (manifest_key(spec.key), b"{}")):
            with storage.open(key, "text/csv", spec.attempt) as upload:
                upload.write(data)
                upload.finish()
        return replace(result_of(spec.key), ignored=spec.ignored)

    def now(self) -> datetime:
        return self.time

    @property
    def context(self) -> WorkerContext:
        sources = Sources(clickhouse=ClickHouse("http://localhost"), database=self.engine)
        return WorkerContext(
            jobs=self.jobs,
            sources=sources,
            storage=self.storage,
            metrics=self.metrics,
            policy=self.policy,
            export=self.export,
            now=self.now,
            tracer=self.tracer,
        )

    def run(self, claim: Claim) -> Outcome | None:
        return run_attempt(claim, self.context, Progress())

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())

    def counted(self, outcome: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "waybill_exports_total", {"outcome": outcome, "table": "traces", "format": "CSV"}
        )
        return value or 0

    def failures(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("waybill_attempts_failed_total", {"reason": reason}) or 0
