"""All that Waybill needs around it, for one test at a time: on the embedded parts, or on the real services."""

import contextlib
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from embedded.stack import Stack as Parts
from tests.services.kafka import Kafka
from tests.services.mail import Mail, Mailbox
from tests.services.postgres import Postgres
from tests.services.s3 import S3, Bucket
from tests.services.smtp import Smtp


class Stack(Protocol):
    """What one test gets: empty databases, storage, topics and mailbox of its own, and a look into them."""

    def environment(self) -> dict[str, str]:
        """The settings that point Waybill at this stack."""

    def databases(self) -> dict[str, str]:
        """Those settings that name its two databases: a test that uses nothing else starts sooner."""

    def mails(self) -> list[Mail]:
        """The mails delivered since the test began, oldest first."""

    def objects(self) -> dict[str, int]:
        """The bytes of everything in storage by key, half-made files included."""

    def uploads(self) -> list[str]:
        """The keys of multipart uploads left open; always empty where storage is a folder."""

    def read(self, key: str) -> bytes:
        """The content of an object."""


class Servers(Protocol):
    """Servers that run for the whole session."""

    def stack(self, folder: Path) -> AbstractContextManager[Stack]:
        """A stack of its own for one test, which may keep files in `folder`."""


@dataclass(frozen=True)
class EmbeddedStack:
    """The embedded parts: storage is a folder, the database a SQLite file."""

    settings: dict[str, str]
    storage: Path
    mailbox: Mailbox

    def environment(self) -> dict[str, str]:
        return dict(self.settings)

    def databases(self) -> dict[str, str]:
        return {name: self.settings[name] for name in ("DATABASE_URL", "CLICKHOUSE_URL", "CLICKHOUSE_DB")}

    def mails(self) -> list[Mail]:
        return self.mailbox.mails()

    def objects(self) -> dict[str, int]:
        files = (path for path in self.storage.rglob("*") if path.is_file())
        return {path.relative_to(self.storage).as_posix(): path.stat().st_size for path in files}

    def uploads(self) -> list[str]:
        return []

    def read(self, key: str) -> bytes:
        return (self.storage / key).read_bytes()


@dataclass(frozen=True)
class RealStack:
    """The real services: storage is an S3 bucket, the database one of PostgreSQL's.

    Topics and the bucket are made when a test first asks for more than the databases: they take longer to make.
    """

    kafka: Kafka
    s3: S3
    smtp: Smtp
    tables: dict[str, str]
    mailbox: Mailbox
    names: dict[str, str]
    life: contextlib.ExitStack

    @cached_property
    def bucket(self) -> Bucket:
        return self.life.enter_context(self.s3.bucket())

    @cached_property
    def _settings(self) -> dict[str, str]:
        # The broker makes no topic by itself.
        self.kafka.create_topics(*(name for setting, name in self.names.items() if setting.endswith("_TOPIC")))
        parts = (self.kafka, self.bucket, self.smtp)
        return {name: value for part in parts for name, value in part.environment().items()} | self.names | self.tables

    def environment(self) -> dict[str, str]:
        return dict(self._settings)

    def databases(self) -> dict[str, str]:
        return dict(self.tables)

    def mails(self) -> list[Mail]:
        return self.mailbox.mails()

    def objects(self) -> dict[str, int]:
        return self.bucket.objects()

    def uploads(self) -> list[str]:
        return self.bucket.uploads()

    def read(self, key: str) -> bytes:
        return self.bucket.read(key)


@dataclass(frozen=True)
class Embedded:
    """The embedded parts as they run for a session."""

    parts: Parts

    @contextlib.contextmanager
    def stack(self, folder: Path) -> Iterator[EmbeddedStack]:
        """Give a test a SQLite file, a folder for storage, topics and a ClickHouse database of its own."""
        storage = folder / "storage"
        storage.mkdir()
        mine = {"DATABASE_URL": f"sqlite:///{folder}/waybill.db", "WAYBILL_STORAGE_URL": storage.as_uri()}
        mailbox = Mailbox(self.parts.emails, "*.eml", "X-Envelope-To")
        with clickhouse_database(self.parts.clickhouse) as database:
            settings = self.parts.environment() | own_names() | mine | {"CLICKHOUSE_DB": database}
            yield EmbeddedStack(settings, storage, mailbox.from_now())


@dataclass(frozen=True)
class Real:
    """The real services as they run for a session, beside the embedded ClickHouse."""

    kafka: Kafka
    postgres: Postgres
    s3: S3
    smtp: Smtp
    clickhouse: str

    @contextlib.contextmanager
    def stack(self, folder: Path) -> Iterator[RealStack]:  # noqa: ARG002 (the protocol's signature)
        """Give a test databases, and a bucket and topics of its own if it needs them."""
        with (
            contextlib.ExitStack() as life,
            self.postgres.database() as database,
            clickhouse_database(self.clickhouse) as clickhouse,
        ):
            tables = database.environment() | {"CLICKHOUSE_URL": self.clickhouse, "CLICKHOUSE_DB": clickhouse}
            mailbox = self.smtp.mailbox.from_now()
            yield RealStack(self.kafka, self.s3, self.smtp, tables, mailbox, own_names(), life)


def own_names() -> dict[str, str]:
    """Topics and consumer groups that no other test has, and what every stack sets alike."""
    suffix = uuid.uuid4().hex[:12]
    return {
        "WAYBILL_REQUESTS_TOPIC": f"export-requests-{suffix}",
        "WAYBILL_COMPLETIONS_TOPIC": f"export-completions-{suffix}",
        "WAYBILL_DEAD_LETTER_TOPIC": f"export-requests-dlq-{suffix}",
        "WAYBILL_CONSUMER_GROUP": f"waybill-consumer-{suffix}",
        "WAYBILL_NOTIFY_GROUP": f"waybill-notify-{suffix}",
        "WAYBILL_HTTP_HOST": "127.0.0.1",
        "LANGFUSE_S3_BATCH_EXPORT_ENABLED": "true",
    }


@contextlib.contextmanager
def clickhouse_database(url: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    _clickhouse(url, f"CREATE DATABASE {name}")
    try:
        yield name
    finally:
        _clickhouse(url, f"DROP DATABASE IF EXISTS {name}")


def _clickhouse(url: str, statement: str) -> None:
    with urllib.request.urlopen(url, data=statement.encode(), timeout=60) as answer:
        answer.read()
