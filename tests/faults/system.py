"""One group of cases: databases, a bucket, topics and a mailbox of its own, and daemons behind proxies."""

import contextlib
import json
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from sqlalchemy import Engine, insert, select, update

from config.settings import load
from config.tables import batch_exports, notices, users
from runtime.database import open_database
from tests.faults.servers import Servers
from tests.faults.source import PROJECT, SMALL, Source
from tests.services.mail import Mail, Mailbox
from tests.services.s3 import Bucket
from tests.services.stacks import own_names
from tests.support.daemons import Daemon, daemon, eventually
from tests.support.exports import row_of, runs_of

QUICK = {
    "WAYBILL_SWEEP_SECONDS": "1",
    "WAYBILL_LEASE_SECONDS": "4",
    "WAYBILL_HEARTBEAT_SECONDS": "0.5",
    "WAYBILL_RETRY_BASE_SECONDS": "0.5",
    "WAYBILL_DRAIN_SECONDS": "1",
    "WAYBILL_SLOTS": "2",
    "WAYBILL_MAX_ATTEMPTS": "5",
    "BATCH_EXPORT_S3_PART_SIZE_MIB": "5",
    "EMAIL_FROM_ADDRESS": "exports@waybill.test",
}
LEASE = 4.0
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}
Start = Callable[["Scene"], Daemon]


@dataclass
class Scene:
    """Where cases are played; what a test does itself goes past the proxies."""

    servers: Servers
    source: Source
    settings: Mapping[str, str]
    engine: Engine
    bucket: Bucket
    mailboxes: list[Mailbox]
    folder: Path
    crew: Sequence[Start] = ()
    random: Random = field(default_factory=Random)
    daemons: list[Daemon] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    _mustered: dict[Start, Daemon] = field(default_factory=dict)
    _life: ExitStack = field(default_factory=ExitStack)

    def consumer(self, *, launcher: Sequence[str] | None = None, **changes: str) -> Daemon:
        """Start a consumer that is ready and lives until the scene ends, or somebody ends it."""
        return self.start("consumer", changes, launcher)

    def notifier(self, **changes: str) -> Daemon:
        """Start a notifier, in the same way."""
        return self.start("notify", changes)

    def rescuer(self) -> Daemon:
        """Start a consumer that hears no doorbell: it takes up what nobody else does."""
        nobody = f"nobody-{uuid.uuid4().hex[:8]}"
        self.servers.kafka.now.create_topics(nobody)
        return self.consumer(WAYBILL_REQUESTS_TOPIC=nobody, WAYBILL_CONSUMER_GROUP=nobody, WAYBILL_SWEEP_SECONDS="1.5")

    def victim(self, launcher: Sequence[str] | None = None) -> Daemon:
        """Start a consumer in a group of its own, so that the next one need not wait until its death is noticed."""
        return self.consumer(launcher=launcher, WAYBILL_CONSUMER_GROUP=f"victim-{uuid.uuid4().hex[:8]}")

    def start(
        self, name: str, changes: Mapping[str, str], launcher: Sequence[str] | None = None, *, wait: bool = True
    ) -> Daemon:
        """Start a daemon with some settings changed, ready unless one does not `wait`."""
        environment = {**self.settings, **QUICK, **changes}
        started = self._life.enter_context(daemon(name, self.folder, environment, wait=wait, launcher=launcher))
        self.daemons.append(started)
        return started

    def muster(self) -> None:
        """Have the crew and nobody else: end who is not of it, and start who of it is not there, or not any more."""
        standing = {start: each for start, each in self._mustered.items() if each.process.poll() is None}
        for each in self.daemons:
            if each not in standing.values() and each.process.poll() is None:
                each.process.send_signal(signal.SIGCONT)
                each.process.terminate()
                each.process.wait(timeout=90)
        self.daemons = list(standing.values())
        self._mustered = {start: standing.get(start) or start(self) for start in self.crew}

    def living(self, name: str = "") -> list[Daemon]:
        """The daemons that still run, those of a command or all."""
        return [each for each in self.daemons if each.process.poll() is None and each.log.name.startswith(name)]

    def ask(self, query: Mapping[str, Any] = SMALL, file_format: str = "JSONL", **values: Any) -> str:
        """Insert an export of somebody's own, as the application does; its id."""
        export_id = uuid.uuid4().hex
        row: dict[str, Any] = {
            "id": export_id,
            "project_id": PROJECT,
            "user_id": export_id,
            "name": "Traces",
            "status": "QUEUED",
        }
        row |= {"query": dict(query), "format": file_format, "created_at": datetime.now(UTC)}
        with self.engine.begin() as connection:
            connection.execute(insert(users).values(id=export_id, name="Ada", email=address(export_id)))
            connection.execute(insert(batch_exports).values(row | values))
        self.asked.append(export_id)
        return export_id

    def ring(self, *export_ids: str, times: int = 1) -> None:
        """Publish the requests, past the proxies' weather only if Kafka's is fair."""
        events = [json.dumps({"projectId": PROJECT, "batchExportId": each}).encode() for each in export_ids]
        self.publish(*(events * times))

    def publish(self, *values: bytes) -> None:
        """Publish any bytes as requests."""
        producer = Producer({"bootstrap.servers": self.settings["KAFKA_BOOTSTRAP_SERVERS"], "log_level": 0})
        for value in values:
            producer.produce(self.settings["WAYBILL_REQUESTS_TOPIC"], value, key=value[:60])
        assert producer.flush(30) == 0

    def request(self, query: Mapping[str, Any] = SMALL, file_format: str = "JSONL") -> str:
        """Ask, and ring."""
        export_id = self.ask(query, file_format)
        self.ring(export_id)
        return export_id

    def status(self, export_id: str) -> str:
        """The row's status."""
        return str(row_of(self.engine, export_id)["status"])

    def set_status(self, export_id: str, status: str) -> None:
        """Write the row's status as the application does, whatever it is."""
        with self.engine.begin() as connection:
            connection.execute(update(batch_exports).where(batch_exports.c.id == export_id).values(status=status))

    def becomes(self, export_id: str, *statuses: str, seconds: float = 90) -> str:
        """Wait until the export has one of these states."""
        return eventually(
            lambda: found if (found := self.status(export_id)) in statuses else None,
            seconds=seconds,
            what=f"{export_id} becomes {' or '.join(statuses)}; its runs: {self.outcomes(export_id)}",
        )

    def outcomes(self, export_id: str) -> list[str | None]:
        """How the attempts ended, in order; None for one that has not."""
        return [run["outcome"] for run in runs_of(self.engine, export_id)]

    def retried(self, export_id: str, times: int = 1) -> None:
        """Wait until so many attempts have been put off."""
        eventually(
            lambda: self.outcomes(export_id).count("retry") >= times,
            seconds=90,
            what=f"{times} retries of {export_id}: {self.outcomes(export_id)}",
        )

    def running(self, export_id: str) -> None:
        """Wait until somebody has claimed it."""
        eventually(lambda: None in self.outcomes(export_id), what=f"{export_id} is claimed")

    def mails(self, export_id: str) -> list[Mail]:
        """The mails to the one who asked for this export."""
        wanted = address(export_id)
        return [each for mailbox in self.mailboxes for each in mailbox.mails() if wanted in each.recipient]

    def notice(self, export_id: str) -> Mapping[str, Any] | None:
        """The row of what is told about this export."""
        with self.engine.connect() as connection:
            query = select(notices).where(notices.c.export_id == export_id).order_by(notices.c.created_at.desc())
            found = connection.execute(query).mappings().first()
        return None if found is None else dict(found)

    def completions(self) -> list[dict[str, Any]]:
        """All that is on the completions topic."""
        topic = self.settings["WAYBILL_COMPLETIONS_TOPIC"]
        reader = Consumer(
            {
                "bootstrap.servers": self.settings["KAFKA_BOOTSTRAP_SERVERS"],
                "group.id": uuid.uuid4().hex,
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        try:
            partitions = reader.list_topics(topic, timeout=20).topics[topic].partitions
            ends = {each: reader.get_watermark_offsets(TopicPartition(topic, each), timeout=20) for each in partitions}
            left = sum(high - low for low, high in ends.values())
            reader.assign([TopicPartition(topic, each, low) for each, (low, _) in ends.items()])
            deadline, found = time.monotonic() + 30, []
            while left and time.monotonic() < deadline:
                message = reader.poll(0.5)
                if message is not None and message.error() is None:
                    found.append(json.loads(message.value() or b"{}"))
                    left -= 1
            assert not left, "the completions could not be read"
            return found
        finally:
            reader.close()

    def pause(self, least: float, most: float) -> None:
        """Let some time pass, as chance has it: faults must not always come at the same moment."""
        time.sleep(self.random.uniform(least, most))

    def end(self) -> None:
        """Stop all daemons; the servers must be well."""
        self._life.close()


def address(export_id: str) -> str:
    """The mail address of the one who asked for an export."""
    return f"ada@{export_id}.test"


@contextlib.contextmanager
def scene(servers: Servers, source: Source, folder: Path) -> Iterator[Scene]:
    """Set a scene in `folder`, and clear it away."""
    names = own_names()
    servers.heal()
    servers.kafka.now.create_topics(*(name for setting, name in names.items() if setting.endswith("_TOPIC")))
    with servers.postgres.now.database(source.template) as database, servers.s3.now.bucket() as bucket:
        user = servers.smtp.now.environment()["SMTP_CONNECTION_URL"].rpartition(":")[0]
        settings = {
            **bucket.environment(),
            **names,
            "LANGFUSE_S3_BATCH_EXPORT_ENDPOINT": servers.store.url,
            "CLICKHOUSE_URL": servers.rows.url,
            "CLICKHOUSE_DB": source.clickhouse_db,
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{servers.kafka_wire.port}",
            "DATABASE_URL": f"postgresql://waybill@127.0.0.1:{servers.postgres_wire.port}/{_name(database.url)}",
            "SMTP_CONNECTION_URL": f"{user}:{servers.smtp_wire.port}",
        }
        engine = open_database(load({"DATABASE_URL": database.url}).database)
        made = Scene(servers, source, settings, engine, bucket, [servers.smtp.now.mailbox.from_now()], folder)
        try:
            yield made
        finally:
            servers.heal()
            made.end()
            engine.dispose()


def _name(url: str) -> str:
    return url.rpartition("/")[2]
