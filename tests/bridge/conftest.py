"""A Redis, a broker behind a proxy, and bridges between them."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bridge.queue import SCRIPT, ExportQueue, Topic
from tests.services import bridge as bridge_service
from tests.services import choice
from tests.services import kafka as kafka_service
from tests.services import redis as redis_service
from tests.services.kafka import Kafka
from tests.services.process import free_port
from tests.services.redis import Redis
from tests.support.daemons import Daemon, daemon
from tests.support.tcp_proxy import TcpProxy, tcp_proxy


@dataclass(frozen=True)
class Broker:
    """A broker whose clients come through a proxy."""

    running: Kafka
    proxy: TcpProxy

    @property
    def bootstrap(self) -> str:
        """Its address, which is that of the proxy."""
        return f"127.0.0.1:{self.proxy.port}"

    def new_topic(self) -> Topic:
        """Create a topic of its own for one test."""
        name = f"requests-{uuid.uuid4().hex[:8]}"
        self.running.create_topics(name)
        return Topic(self.bootstrap, name)


@dataclass(frozen=True)
class Bridges:
    """Starts bridges from a queue to a topic."""

    main: Path
    folder: Path
    settings: Mapping[str, str]

    def run(self, settings: Mapping[str, str] | None = None, *, wait: bool = True) -> AbstractContextManager[Daemon]:
        """Run a bridge while the block runs, which begins once it is ready."""
        launcher = [str(bridge_service.node()), str(self.main)]
        return daemon("bridge", self.folder, {**self.settings, **(settings or {})}, wait=wait, launcher=launcher)


@pytest.fixture(scope="session", autouse=True)
def _needed() -> None:
    for service in ("kafka", "redis", "bridge"):
        if reason := choice.why_not(service):
            pytest.skip(reason)


@pytest.fixture(scope="session")
def installed(services_folder: Path) -> Path:
    """The bridge beside its packages, with the script that adds jobs."""
    return bridge_service.lay_out(services_folder / "bridge", SCRIPT)


@pytest.fixture(scope="session")
def broker(services_folder: Path) -> Iterator[Broker]:
    port = free_port()
    folder = services_folder / "bridge-kafka"
    with tcp_proxy(port) as proxy, kafka_service.start(folder, port, proxy.port) as running:
        yield Broker(running, proxy)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with redis_service.start(tmp_path / "redis", password="a:b@c %41") as running:
        yield running


@pytest.fixture
def queue(redis: Redis, installed: Path) -> ExportQueue:
    return ExportQueue(redis, installed.parents[1] / SCRIPT.name)


@pytest.fixture
def topic(broker: Broker) -> Iterator[Topic]:
    yield broker.new_topic()
    broker.proxy.heal()


@pytest.fixture
def bridges(redis: Redis, topic: Topic, broker: Broker, installed: Path, tmp_path: Path) -> Bridges:
    kafka = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "WAYBILL_REQUESTS_TOPIC": topic.name}
    return Bridges(installed, tmp_path, {**redis.environment(), **kafka})
