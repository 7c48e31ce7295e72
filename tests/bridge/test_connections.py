"""The bridge connects to Redis as Langfuse does, and to Kafka as Waybill does."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridge.conftest import Bridges
from tests.bridge.queue import ExportQueue, Topic, new_ids
from tests.services import kafka_logins
from tests.services import redis as redis_service
from tests.services.kafka_logins import SecuredKafka
from tests.services.process import free_port
from tests.services.redis import Redis
from tests.support.certificates import Authority, make_authority
from tests.support.daemons import eventually
from tests.support.token_issuer import token_issuer

PASSWORD = "a/b?c#d e%41"
QUOTED = "a%2Fb%3Fc%23d%20e%2541"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Redis]:
    with redis_service.start(tmp_path_factory.mktemp("redis"), password=PASSWORD, authority=authority) as running:
        yield running


@pytest.fixture(scope="module")
def logins(services_folder: Path, authority: Authority) -> Iterator[SecuredKafka]:
    folder = services_folder / "bridge-logins"
    with token_issuer() as issuer, kafka_logins.start(folder, authority, issuer) as running:
        yield running


def _check(bridges: Bridges, settings: dict[str, str], queue: ExportQueue, topic: Topic) -> None:
    queue.add_exports(*(exports := new_ids(5)))
    with bridges.run(settings):
        eventually(queue.empty, what="the queue is empty")
    assert topic.exports() == dict.fromkeys(exports, 1)


@pytest.mark.parametrize("form", ["url", "url with tls", "tls", "tls by name", "unchecked tls"])
def test_redis_with_a_password_and_tls(
    form: str, secured: Redis, authority: Authority, queue: ExportQueue, topic: Topic, bridges: Bridges
) -> None:
    tls = {"REDIS_TLS_ENABLED": "true", "REDIS_TLS_CA_PATH": str(authority.file)}
    with_tls = {**tls, "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(secured.tls_port), "REDIS_AUTH": PASSWORD}
    settings = {
        "url": {"REDIS_CONNECTION_STRING": f"redis://:{QUOTED}@127.0.0.1:{secured.port}/0"},
        "url with tls": {**tls, "REDIS_CONNECTION_STRING": f"rediss://default:{QUOTED}@localhost:{secured.tls_port}"},
        "tls": with_tls,
        "tls by name": {**with_tls, "REDIS_TLS_SERVERNAME": "localhost"},
        "unchecked tls": {**with_tls, "REDIS_TLS_CA_PATH": "", "REDIS_TLS_REJECT_UNAUTHORIZED": "false"},
    }
    _check(bridges, settings[form], ExportQueue(secured, queue.script), topic)


def test_a_redis_that_refuses_the_password_is_named_once(secured: Redis, bridges: Bridges) -> None:
    with bridges.run({"REDIS_PORT": str(secured.port), "REDIS_AUTH": "wrong"}, wait=False) as bridge:
        eventually(lambda: "WRONGPASS" in bridge.get("/readyz")[1], what="the reason is the password")
        tried = _count_connections(secured)
        eventually(lambda: _count_connections(secured) >= tried + 4, what="it tries again")
        assert "WRONGPASS" in bridge.get("/readyz")[1]
        assert not bridge.ready()
        assert bridge.process.poll() is None
        logged = [each["reason"] for each in bridge.lines() if each["message"].startswith("Redis is not available")]
        assert len(logged) == len(set(logged))
        bridge.process.terminate()
        assert bridge.process.wait(30) == 0
    assert bridge.lines()[-1]["message"] == "stopped"


def test_a_redis_with_a_certificate_of_an_unknown_authority_is_named(secured: Redis, bridges: Bridges) -> None:
    settings = {"REDIS_PORT": str(secured.tls_port), "REDIS_TLS_ENABLED": "true", "REDIS_AUTH": PASSWORD}
    with bridges.run(settings, wait=False) as bridge:
        eventually(lambda: "certificate" in bridge.get("/readyz")[1], what="the reason is the certificate")
        assert not bridge.ready()


def _count_connections(redis: Redis) -> int:
    """The connections that a server has accepted, but for those that count them."""
    count = redis.run("eval", "return redis.call('incr', 'counted')", "0")
    (accepted,) = re.findall(r"total_connections_received:(\d+)", redis.run("info", "stats"))
    return int(accepted) - 2 * int(count)


@pytest.mark.parametrize("prefix", ["", "tenant"])
def test_a_cluster(prefix: str, queue: ExportQueue, topic: Topic, bridges: Bridges, tmp_path: Path) -> None:
    alone = {"cluster-enabled": "yes", "cluster-announce-ip": "127.0.0.1", "cluster-port": str(free_port())}
    with redis_service.start(tmp_path / "cluster", options=alone) as node:
        node.run("cluster", "addslotsrange", "0", "16383")
        eventually(lambda: "cluster_state:ok" in node.run("cluster", "info"), what="the cluster is ready")
        keys = "{tenant:batch-export-queue}" if prefix else "{batch-export-queue}"
        settings = {
            "REDIS_CLUSTER_ENABLED": "true",
            "REDIS_CLUSTER_NODES": f"127.0.0.1:{node.port}",
            "REDIS_AUTH": "",
            "REDIS_KEY_PREFIX": prefix,
        }
        _check(bridges, settings, ExportQueue(node, queue.script, keys, cluster=True), topic)


def test_a_prefix(queue: ExportQueue, topic: Topic, bridges: Bridges, redis: Redis) -> None:
    _check(bridges, {"REDIS_KEY_PREFIX": "tenant"}, ExportQueue(redis, queue.script, "tenant"), topic)


def test_a_server_that_sentinels_watch(queue: ExportQueue, topic: Topic, bridges: Bridges, tmp_path: Path) -> None:
    with (
        redis_service.start(tmp_path / "watched") as watched,
        redis_service.start_sentinel(tmp_path / "sentinel", "exports", watched) as port,
    ):
        settings = {
            "REDIS_SENTINEL_ENABLED": "true",
            "REDIS_SENTINEL_NODES": f"127.0.0.1:{port}",
            "REDIS_SENTINEL_MASTER_NAME": "exports",
            "REDIS_AUTH": "",
        }
        _check(bridges, settings, ExportQueue(watched, queue.script), topic)


@pytest.mark.parametrize("login", ["password", "certificate"])
def test_a_broker_that_asks_for_a_login(login: str, logins: SecuredKafka, queue: ExportQueue, bridges: Bridges) -> None:
    mine = Topic(logins.plain.bootstrap, f"requests-{login}")
    logins.plain.create_topics(mine.name)
    _check(bridges, {**logins.environment(login), "WAYBILL_REQUESTS_TOPIC": mine.name}, queue, mine)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"KAFKA_SASL_PASSWORD": "wrong"}, "SASL authentication failed"),
        ({"KAFKA_SSL_CA_LOCATION": ""}, "unable to verify the first certificate"),
        ({"WAYBILL_REQUESTS_TOPIC": "missing"}, "missing"),
    ],
)
def test_a_broker_that_refuses_the_bridge_is_named(
    wrong: dict[str, str], reason: str, logins: SecuredKafka, bridges: Bridges
) -> None:
    with bridges.run({**logins.environment("password"), **wrong}, wait=False) as bridge:
        eventually(lambda: reason in bridge.get("/readyz")[1], what=f"the reason is {reason}")
        assert not bridge.ready()
        bridge.process.terminate()
        assert bridge.process.wait(30) == 0
