"""The system under test: Waybill under load, scraped by Prometheus, and faults injected from outside."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer
from sqlalchemy import Engine, func, select

from cli import build
from config.events import ExportRequested, Status
from config.settings import Settings
from config.tables import batch_exports, users
from consumer.models import Job, NewExport
from embedded.sample import PROJECTS, fill
from embedded.schema import create_langfuse_schema
from pipeline.types import FORMATS
from runtime.database import writing
from runtime.migrations import migrate
from tests.services.prometheus import Prometheus
from tests.services.s3 import Bucket
from tests.support import daemons
from tests.support.daemons import Daemon, command, daemon
from tests.support.kafka_raw import BAD_NAME, batch, produce, record

HELM = Path(__file__).parents[2] / "helm"
PATIENCE = 3 * daemons.PATIENCE
QUICK = {
    "WAYBILL_SWEEP_SECONDS": "0.5",
    "WAYBILL_HEARTBEAT_SECONDS": "0.5",
    "WAYBILL_LEASE_SECONDS": "6",
    "WAYBILL_RETRY_BASE_SECONDS": "0.5",
    "WAYBILL_MAX_ATTEMPTS": "3",
    "WAYBILL_DRAIN_SECONDS": "1",
    "WAYBILL_PUBLIC_URL": "http://waybill.example",
    "WAYBILL_SECRET_KEY": "k" * 32,
}
ROWS = 500
TRACES: Mapping[str, Any] = {"tableName": "traces", "filter": [], "orderBy": None}
NO_LIMIT = 1 << 40
_IN_ITS_OWN_GROUP = 'mount --bind "$1" /sys/fs/cgroup; shift; exec "$@"'


@dataclass
class System:
    """The servers around Waybill, its daemons, and ways to request exports and to inject faults."""

    folder: Path
    settings: Settings
    environment: dict[str, str]
    bucket: Bucket
    prometheus: Prometheus
    consumers: dict[str, Daemon] = field(default_factory=dict)
    notifiers: dict[str, Daemon] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.engine: Engine = build.engine(self.settings)
        self._jobs = build.jobs(self.settings)
        self._producer = Producer({"bootstrap.servers": self.settings.kafka_bootstrap_servers})
        self.group = self.folder / "cgroup"
        self.group.mkdir()
        self.limit(NO_LIMIT)

    def prepare(self) -> None:
        """Create the tables, and some rows to export."""
        with build.clickhouse_client(self.settings) as client:
            create_langfuse_schema(client, self.engine)
            migrate(self.engine)
            fill(client, self.engine, rows=ROWS)
        with self.engine.connect() as connection:
            self._user = str(connection.execute(select(users.c.id).where(users.c.email.is_not(None))).scalar())

    @contextlib.contextmanager
    def consumer(self, **changes: str) -> Iterator[Daemon]:
        """Run a consumer in its own memory control group, and scrape it while the block runs."""
        inside = ["unshare", "--mount", "sh", "-ec", _IN_ITS_OWN_GROUP, "sh", str(self.group)]
        environment = {**self.environment, **changes}
        with daemon("consumer", self.folder, environment, launcher=[*inside, *command("consumer")]) as running:
            yield from self._scraped(self.consumers, running)

    @contextlib.contextmanager
    def notifier(self) -> Iterator[Daemon]:
        """Run a notifier, and scrape it while the block runs."""
        with daemon("notify", self.folder, self.environment) as running:
            yield from self._scraped(self.notifiers, running)

    def limit(self, size: int) -> None:
        """Set the memory that consumers may use, in bytes."""
        (self.group / "memory.max").write_text(f"{size}\n")

    def request(self) -> Job:
        """Queue an export and publish its request event."""
        job = self.queue()
        self.publish_request(job)
        return job

    def queue(self, query: Mapping[str, Any] = TRACES) -> Job:
        """Queue an export."""
        format_ = list(FORMATS)[next(self._numbers) % len(FORMATS)]
        new = NewExport(project_id=PROJECTS[0], user_id=self._user, name="An export", query=dict(query), format=format_)
        return self._jobs.create(new, datetime.now(UTC))

    def publish_request(self, job: Job) -> None:
        """Publish the request event of an export."""
        self.publish(ExportRequested(project_id=job.project_id, batch_export_id=job.id).encode())

    def publish(self, value: bytes) -> None:
        """Publish any bytes to the topic of requests."""
        self._producer.produce(self.settings.requests_topic, value)
        self._producer.flush(10)

    def publish_unreadable(self) -> None:
        """Publish a record with a header whose name is not UTF-8 to the topic of requests."""
        data = batch([record(b"not a request", headers=[(BAD_NAME, b"")])])
        assert produce(str(self.settings.kafka_bootstrap_servers), self.settings.requests_topic, 0, data).error == 0

    def status(self, job: Job) -> str:
        """The status of an export."""
        found = self._jobs.find(job.project_id, job.id)
        assert found is not None
        return found.status

    def unfinished(self) -> int:
        """The number of queued and running exports."""
        waiting = batch_exports.c.status.in_([Status.QUEUED, Status.PROCESSING])
        with self.engine.connect() as connection:
            return int(connection.scalar(select(func.count()).where(waiting)) or 0)

    @contextlib.contextmanager
    def load(self, seconds: float = 1.0) -> Iterator[None]:
        """Request an export at this interval while the block runs."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(seconds):
                self.request()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextlib.contextmanager
    def frozen(self, part: str) -> Iterator[None]:
        """Suspend an embedded part while the block runs."""
        marks = f"embedded.{part}"
        stopped = [each for each in psutil.Process().children() if marks in each.cmdline()]
        assert stopped, f"no {part} runs"
        for each in stopped:
            each.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for each in stopped:
                each.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def without_bucket(self) -> Iterator[None]:
        """Remove the bucket while the block runs, so that the store refuses every request."""
        self.bucket.remove()
        try:
            yield
        finally:
            self.bucket.client.create_bucket(Bucket=self.bucket.name)

    @contextlib.contextmanager
    def locked_database(self) -> Iterator[None]:
        """Lock the database against writes while the block runs."""
        with writing(self.engine):
            yield

    def _scraped(self, running: dict[str, Daemon], one: Daemon) -> Iterator[Daemon]:
        running[one.url] = one
        self._scrape()
        try:
            yield one
        finally:
            del running[one.url]
            self._scrape()

    def _scrape(self) -> None:
        self.prometheus.scrape({"waybill-consumer": list(self.consumers), "waybill-notify": list(self.notifiers)})


def kill(one: Daemon) -> None:
    """Kill a daemon, as a node failure does."""
    one.process.kill()
    one.process.wait()


def resident(one: Daemon) -> int:
    """The memory that a daemon uses, in bytes."""
    return int(psutil.Process(one.process.pid).memory_info().rss)
