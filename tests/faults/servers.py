"""The servers of the fault suite: real ones, each behind a proxy, and each can be stopped and started."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import psycopg

from embedded import stack as embedded_parts
from tests.services import azure as azure_service
from tests.services import gcs as gcs_service
from tests.services import kafka as kafka_service
from tests.services import postgres as postgres_service
from tests.services import s3 as s3_service
from tests.services import smtp as smtp_service
from tests.services.kafka import Kafka
from tests.services.postgres import Postgres
from tests.services.process import free_port
from tests.services.smtp import Smtp
from tests.support.http_proxy import HttpProxy, http_proxy
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

S = TypeVar("S")


@dataclass
class RestartableServer(Generic[S]):
    """A server that can be stopped and started again with the same data and port."""

    open: Callable[[], AbstractContextManager[S]]
    _life: ExitStack = field(default_factory=ExitStack)
    _running: S | None = None

    @property
    def running(self) -> S:
        """The server, while it runs."""
        assert self._running is not None, "the server is stopped"
        return self._running

    def start(self) -> S:
        """Start the server, if it does not run."""
        if self._running is None:
            self._running = self._life.enter_context(self.open())
        return self._running

    def stop(self) -> None:
        """Stop the server, as a crash would."""
        self._running = None
        self._life.close()


@dataclass(frozen=True)
class Servers:
    """The servers of a whole session; Waybill connects to their proxies."""

    kafka: RestartableServer[Kafka]
    postgres: RestartableServer[Postgres]
    store: RestartableServer[Any]
    smtp: RestartableServer[Smtp]
    clickhouse: str
    kafka_proxy: TcpProxy
    postgres_proxy: TcpProxy
    smtp_proxy: TcpProxy
    store_proxy: HttpProxy
    clickhouse_proxy: HttpProxy

    def heal(self) -> None:
        """Undo all faults: start the stopped servers, and let the proxies pass everything."""
        self.kafka.start()
        self.postgres.start()
        self.store.start()
        self.smtp.start()
        self.smtp_proxy.target = self.smtp.running.port
        for tcp in (self.kafka_proxy, self.postgres_proxy, self.smtp_proxy):
            tcp.heal()
        for http in (self.store_proxy, self.clickhouse_proxy):
            http.clear()


@contextlib.contextmanager
def start_servers(folder: Path) -> Iterator[Servers]:
    """Run all servers in `folder` while the block runs."""
    with ExitStack() as life:
        kafka_port, postgres_port, s3_port, smtp_port = (free_port() for _ in range(4))
        clickhouse = life.enter_context(embedded_parts.run_stack(folder / "embedded")).clickhouse
        kafka_proxy = life.enter_context(tcp_proxy(kafka_port))
        servers = (
            RestartableServer(lambda: kafka_service.start(folder / "kafka", kafka_port, kafka_proxy.port)),
            RestartableServer(lambda: postgres_service.start(folder / "postgres", postgres_port)),
            RestartableServer(lambda: s3_service.start(folder / "s3", s3_port)),
            RestartableServer(lambda: smtp_service.start(folder / "smtp", smtp_port)),
        )
        kafka, postgres, store, smtp = servers
        for each in servers:
            each.start()
            life.callback(each.stop)
        _make_commits_durable(postgres.running)
        yield Servers(
            kafka,
            postgres,
            store,
            smtp,
            clickhouse,
            kafka_proxy,
            life.enter_context(tcp_proxy(postgres_port)),
            life.enter_context(tcp_proxy(smtp_port)),
            life.enter_context(http_proxy(store.running.endpoint)),
            life.enter_context(http_proxy(clickhouse)),
        )


@contextlib.contextmanager
def replace_store(servers: Servers, name: str, folder: Path) -> Iterator[Servers]:
    """Run the emulator of another store, by the name of its service, while the block runs; with the same servers."""
    starts: dict[str, Callable[[Path, int], AbstractContextManager[Any]]] = {
        "azure": azure_service.start,
        "gcs": gcs_service.start,
    }
    port = free_port()
    store: RestartableServer[Any] = RestartableServer(lambda: starts[name](folder / name, port))
    store.start()
    try:
        with http_proxy(store.running.endpoint) as proxy:
            yield replace(servers, store=store, store_proxy=proxy)
    finally:
        store.stop()


def _make_commits_durable(postgres: Postgres) -> None:
    """Make commits survive a crash of the server; the other tests turn this off for speed."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = on")
