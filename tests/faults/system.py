"""The system under test: databases, a bucket, topics and a mailbox, and daemons that reach them through proxies."""

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

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from sqlalchemy import Engine, insert, select, update

from config.events import Malformed, read_finished
from config.settings import load
from config.tables import batch_exports, notices, users
from runtime.database import open_database
from tests.containers.containers import Containers
from tests.faults.servers import Servers
from tests.faults.source import PROJECT, SMALL, Source
from tests.faults.stores import DIALECTS, StoreDialect
from tests.services.mail import Mail, Mailbox
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
STARTING = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError._TRANSPORT}
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}
Start = Callable[["System"], Daemon]


@dataclass
class System:
    """The daemons and their surroundings; the methods reach all servers but Kafka directly, not through the proxies."""

    servers: Servers
    source: Source
    settings: Mapping[str, str]
    engine: Engine
    bucket: Any
    mailboxes: list[Mailbox]
    folder: Path
    store: StoreDialect = DIALECTS["s3"]
    expected_daemons: Sequence[Start] = ()
    random: Random = field(default_factory=Random)
    daemons: list[Daemon] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    containers: Containers | None = None
    """What runs daemons in containers, in the groups that do."""

    _started: dict[Start, Daemon] = field(default_factory=dict)
    _life: ExitStack = field(default_factory=ExitStack)

    def consumer(self, *, launcher: Sequence[str] | None = None, **changes: str) -> Daemon:
        """Start a consumer and wait until it is ready; it runs until the system or a test stops it."""
        return self.start("consumer", changes, launcher)

    def notifier(self, **changes: str) -> Daemon:
        """Start a notifier in the same way."""
        return self.start("notify", changes)

    def sweeping_consumer(self) -> Daemon:
        """Start a consumer without request events: it claims only what its sweeper finds."""
        unused = f"unused-{uuid.uuid4().hex[:8]}"
        self.servers.kafka.running.create_topics(unused)
        return self.consumer(WAYBILL_REQUESTS_TOPIC=unused, WAYBILL_CONSUMER_GROUP=unused, WAYBILL_SWEEP_SECONDS="1.5")

    def isolated_consumer(self, launcher: Sequence[str] | None = None) -> Daemon:
        """Start a consumer in a new consumer group: after its death no session timeout delays the next."""
        return self.consumer(launcher=launcher, WAYBILL_CONSUMER_GROUP=f"isolated-{uuid.uuid4().hex[:8]}")

    def start(
        self, name: str, changes: Mapping[str, str], launcher: Sequence[str] | None = None, *, wait: bool = True
    ) -> Daemon:
        """Start a daemon with some settings changed; `wait` until it is ready."""
        environment = {**self.settings, **QUICK, **changes}
        started = self._life.enter_context(daemon(name, self.folder, environment, wait=wait, launcher=launcher))
        self.daemons.append(started)
        return started

    def restore_daemons(self) -> None:
        """Stop every daemon that is not expected, and start the expected ones that do not run."""
        running = {start: each for start, each in self._started.items() if each.process.poll() is None}
        for each in self.daemons:
            if each not in running.values() and each.process.poll() is None:
                each.process.send_signal(signal.SIGCONT)
                each.process.terminate()
                each.process.wait(timeout=90)
        self.daemons = list(running.values())
        self._started = {start: running.get(start) or start(self) for start in self.expected_daemons}

    def alive(self, name: str = "") -> list[Daemon]:
        """The running daemons, all of them or those of one command."""
        return [each for each in self.daemons if each.process.poll() is None and each.log.name.startswith(name)]

    def insert(
        self,
        query: Mapping[str, Any] = SMALL,
        file_format: str = "JSONL",
        *,
        user: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> str:
        """Insert an export with a user of its own, as Langfuse does; returns its id."""
        export_id = str(values.get("id") or uuid.uuid4().hex)
        row: dict[str, Any] = {
            "id": export_id,
            "project_id": PROJECT,
            "user_id": export_id,
            "name": "Traces",
            "status": "QUEUED",
        }
        row |= {"query": dict(query), "format": file_format, "created_at": datetime.now(UTC)}
        with self.engine.begin() as connection:
            owner = {"id": export_id, "name": "Ada", "email": address(export_id)} | dict(user or {})
            connection.execute(insert(users).values(owner))
            connection.execute(insert(batch_exports).values(row | values))
        self.requested.append(export_id)
        return export_id

    def publish_requests(self, *export_ids: str, times: int = 1) -> None:
        """Publish the request events, through Kafka's proxy."""
        events = [json.dumps({"projectId": PROJECT, "batchExportId": each}).encode() for each in export_ids]
        self.publish(*(events * times))

    def publish(self, *values: bytes) -> None:
        """Publish any bytes to the topic of requests."""
        producer = Producer({"bootstrap.servers": self.settings["KAFKA_BOOTSTRAP_SERVERS"], "log_level": 0})
        for value in values:
            producer.produce(self.settings["WAYBILL_REQUESTS_TOPIC"], value, key=value[:60])
        assert producer.flush(30) == 0

    def request(self, query: Mapping[str, Any] = SMALL, file_format: str = "JSONL") -> str:
        """Insert an export and publish its request event; returns its id."""
        export_id = self.insert(query, file_format)
        self.publish_requests(export_id)
        return export_id

    def status(self, export_id: str) -> str:
        """The status on the row."""
        return str(row_of(self.engine, export_id)["status"])

    def set_status(self, export_id: str, status: str) -> None:
        """Set the status on the row, as Langfuse does, without a condition."""
        with self.engine.begin() as connection:
            connection.execute(update(batch_exports).where(batch_exports.c.id == export_id).values(status=status))

    def wait_for(self, export_id: str, *statuses: str, seconds: float = 90) -> str:
        """Wait until the export has one of these states."""
        return eventually(
            lambda: found if (found := self.status(export_id)) in statuses else None,
            seconds=seconds,
            what=f"{export_id} becomes {' or '.join(statuses)}; its runs: {self.outcomes(export_id)}",
        )

    def outcomes(self, export_id: str) -> list[str | None]:
        """How the attempts ended, in order; None for one that has not."""
        return [run["outcome"] for run in runs_of(self.engine, export_id)]

    def wait_for_retries(self, export_id: str, times: int = 1) -> None:
        """Wait until this many attempts have ended with a retry."""
        eventually(
            lambda: self.outcomes(export_id).count("retry") >= times,
            seconds=90,
            what=f"{times} retries of {export_id}: {self.outcomes(export_id)}",
        )

    def wait_until_claimed(self, export_id: str) -> None:
        """Wait until a consumer has claimed the export."""
        eventually(lambda: None in self.outcomes(export_id), what=f"{export_id} is claimed")

    def emails(self, export_id: str) -> list[Mail]:
        """The emails to the user of this export."""
        wanted = address(export_id)
        return [each for mailbox in self.mailboxes for each in mailbox.mails() if wanted in each.recipient]

    def notice(self, export_id: str, channel: str = "mail") -> Mapping[str, Any] | None:
        """The latest notice of this export for a channel, if there is one."""
        same = (notices.c.export_id == export_id, notices.c.channel == channel)
        with self.engine.connect() as connection:
            query = select(notices).where(*same).order_by(notices.c.created_at.desc())
            found = connection.execute(query).mappings().first()
        return None if found is None else dict(found)

    def completions(self) -> list[dict[str, Any]]:
        """All events on the topic of completions, without the values that are not JSON."""
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
            ends = {each: _ends(reader, TopicPartition(topic, each)) for each in partitions}
            left = sum(high - low for low, high in ends.values())
            reader.assign([TopicPartition(topic, each, low) for each, (low, _) in ends.items()])
            deadline, found = time.monotonic() + 30, []
            while left and time.monotonic() < deadline:
                message = reader.poll(0.5)
                if message is not None and message.error() is None:
                    left -= 1
                    with contextlib.suppress(Malformed):
                        found.append(read_finished(message.value()).model_dump(by_alias=True))
            assert not left, "the completions could not be read"
            return found
        finally:
            reader.close()

    def pause(self, least: float, most: float) -> None:
        """Sleep for a random time, so that faults come at different moments."""
        time.sleep(self.random.uniform(least, most))

    def stop(self) -> None:
        """Stop all daemons; the servers must be healed before."""
        self._life.close()


def _ends(reader: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """The first offset and the next one; a broker that has just started is asked again."""

    def ask() -> tuple[int, int] | None:
        try:
            return reader.get_watermark_offsets(partition, timeout=20)
        except KafkaException as error:
            if error.args[0].code() not in STARTING:
                raise
            return None

    return eventually(ask, what=f"a leader of {partition.topic} {partition.partition}")


def address(export_id: str) -> str:
    """The email address of the user of an export."""
    return f"ada@{export_id}.test"


@contextlib.contextmanager
def start_system(servers: Servers, source: Source, folder: Path, store: str = "s3") -> Iterator[System]:
    """Make databases, topics and a bucket, and remove them after the block; the daemons log into `folder`.

    `store` is the name of the service that `servers.store` is.
    """
    names = own_names()
    servers.heal()
    servers.kafka.running.create_topics(*(name for setting, name in names.items() if setting.endswith("_TOPIC")))
    with servers.postgres.running.database(source.template) as database, servers.store.running.bucket() as bucket:
        user = servers.smtp.running.environment()["SMTP_CONNECTION_URL"].rpartition(":")[0]
        settings = {
            **bucket.environment(),
            **names,
            "LANGFUSE_S3_BATCH_EXPORT_ENDPOINT": servers.store_proxy.url,
            "CLICKHOUSE_URL": servers.clickhouse_proxy.url,
            "CLICKHOUSE_DB": source.clickhouse_db,
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{servers.kafka_proxy.port}",
            "DATABASE_URL": f"postgresql://waybill@127.0.0.1:{servers.postgres_proxy.port}/{_name(database.url)}",
            "SMTP_CONNECTION_URL": f"{user}:{servers.smtp_proxy.port}",
        }
        engine = open_database(load({"DATABASE_URL": database.url}).database)
        mailboxes = [servers.smtp.running.mailbox.from_now()]
        system = System(servers, source, settings, engine, bucket, mailboxes, folder, DIALECTS[store])
        try:
            yield system
        finally:
            servers.heal()
            system.stop()
            engine.dispose()


def _name(url: str) -> str:
    return url.rpartition("/")[2]
