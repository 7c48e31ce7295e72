"""The servers of the fault suite: real ones, each with a proxy before it, and each can be stopped and started."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import psycopg

from embedded import stack as embedded_parts
from tests.services import kafka as kafka_service
from tests.services import postgres as postgres_service
from tests.services import s3 as s3_service
from tests.services import smtp as smtp_service
from tests.services.kafka import Kafka
from tests.services.postgres import Postgres
from tests.services.process import free_port
from tests.services.s3 import S3
from tests.services.smtp import Smtp
from tests.support.http_proxy import Door, door
from tests.support.tcp_proxy import Wire, wire

S = TypeVar("S")


@dataclass
class Switched(Generic[S]):
    """A server that can be switched off and on again, with its data and its port."""

    start: Callable[[], AbstractContextManager[S]]
    _life: ExitStack = field(default_factory=ExitStack)
    _running: S | None = None

    @property
    def now(self) -> S:
        """The server as it runs."""
        assert self._running is not None, "it is switched off"
        return self._running

    def on(self) -> S:
        """Start it, if it does not run."""
        if self._running is None:
            self._running = self._life.enter_context(self.start())
        return self._running

    def off(self) -> None:
        """Stop it, as a crash would."""
        self._running = None
        self._life.close()


@dataclass(frozen=True)
class Servers:
    """What runs for a whole session; the proxies are what Waybill is pointed to."""

    kafka: Switched[Kafka]
    postgres: Switched[Postgres]
    s3: Switched[S3]
    smtp: Switched[Smtp]
    clickhouse: str
    kafka_wire: Wire
    postgres_wire: Wire
    smtp_wire: Wire
    store: Door
    rows: Door

    def heal(self) -> None:
        """Make everything as it should be: servers on, proxies that let all pass."""
        self.kafka.on()
        self.postgres.on()
        self.s3.on()
        self.smtp.on()
        self.smtp_wire.target = self.smtp.now.port
        for wire_ in (self.kafka_wire, self.postgres_wire, self.smtp_wire):
            wire_.heal()
        for door_ in (self.store, self.rows):
            door_.clear()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Servers]:
    """Run all of them in `folder` for the block."""
    with ExitStack() as life:
        kafka_port, postgres_port, s3_port, smtp_port = (free_port() for _ in range(4))
        clickhouse = life.enter_context(embedded_parts.started(folder / "embedded")).clickhouse
        kafka_wire = life.enter_context(wire(kafka_port))
        switched = (
            Switched(lambda: kafka_service.start(folder / "kafka", kafka_port, kafka_wire.port)),
            Switched(lambda: postgres_service.start(folder / "postgres", postgres_port)),
            Switched(lambda: s3_service.start(folder / "s3", s3_port)),
            Switched(lambda: smtp_service.start(folder / "smtp", smtp_port)),
        )
        kafka, postgres, s3, smtp = switched
        for each in switched:
            each.on()
            life.callback(each.off)
        _keep_promises(postgres.now)
        yield Servers(
            kafka,
            postgres,
            s3,
            smtp,
            clickhouse,
            kafka_wire,
            life.enter_context(wire(postgres_port)),
            life.enter_context(wire(smtp_port)),
            life.enter_context(door(s3.now.endpoint)),
            life.enter_context(door(clickhouse)),
        )


def _keep_promises(postgres: Postgres) -> None:
    """Have commits survive a crash of the server: other tests do without, for speed."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = on")
