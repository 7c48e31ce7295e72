"""The main flow on a Kafka broker that demands TLS and a login: a SCRAM password, a client certificate, a token."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.e2e.requests import QUICK, insert_export, read_status
from tests.services import choice, kafka_logins
from tests.services.kafka_logins import SecuredKafka
from tests.services.stacks import Stack
from tests.support.certificates import make_authority
from tests.support.daemons import Daemon, daemon, eventually, waybill
from tests.support.token_issuer import TokenIssuer, token_issuer

pytestmark = pytest.mark.slow

LIFETIME = 6.0
"""Seconds; the broker closes a connection when its token expires."""


@pytest.fixture(scope="module")
def secured(services_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    if reason := choice.why_not("kafka"):
        pytest.skip(reason)
    authority = make_authority(tmp_path_factory.mktemp("authority"))
    with token_issuer() as issuer, kafka_logins.start(services_folder / "kafka-logins", authority, issuer) as broker:
        yield broker


@pytest.fixture
def issuer(secured: SecuredKafka) -> Iterator[TokenIssuer]:
    """The issuer of tokens with a short life, until the test ends."""
    before, secured.issuer.lifetime = secured.issuer.lifetime, LIFETIME
    yield secured.issuer
    secured.issuer.lifetime, secured.issuer.answer = before, None


def prepare(stack: Stack, secured: SecuredKafka, login: str) -> dict[str, str]:
    """Return the settings of a login, with which the topics have been created."""
    environment = stack.environment() | QUICK | secured.environment(login)
    created = waybill("topics", environment=environment)
    assert created.returncode == 0, created.stderr
    return environment


def export(engine: Engine, environment: dict[str, str]) -> None:
    """Request an export and wait until it is completed."""
    export_id = insert_export(engine)
    rung = waybill("ring", "demo", export_id, environment=environment)
    assert rung.returncode == 0, rung.stderr
    eventually(lambda: read_status(engine, export_id) == "COMPLETED", what="the export is completed")


@pytest.mark.parametrize("login", ["password", "certificate", "token"])
def test_exports_complete_with_every_login(
    stack: Stack, sample_data: Engine, secured: SecuredKafka, login: str, tmp_path: Path
) -> None:
    environment = prepare(stack, secured, login)

    with daemon("consumer", tmp_path, environment), daemon("notify", tmp_path, environment):
        export(sample_data, environment)
        eventually(lambda: len(stack.mails()) == 1, what="the email arrives")
        doctor = waybill("doctor", "--json", environment=environment)

    assert doctor.returncode == 0, doctor.stdout


def messages(running: Daemon) -> list[str]:
    return [str(line["message"]) for line in running.lines()]


def test_a_daemon_outlives_its_tokens_and_outages_of_their_issuer(
    stack: Stack, sample_data: Engine, secured: SecuredKafka, issuer: TokenIssuer, tmp_path: Path
) -> None:
    environment = prepare(stack, secured, "token")
    issuer.answer = lambda _: (503, b"")

    with daemon("consumer", tmp_path, environment, wait=False) as consumer:
        eventually(
            lambda: any(each.startswith("waiting for kafka: there is no token") for each in messages(consumer)),
            what=f"the daemon says what it waits for, see {consumer.log}",
        )
        assert consumer.get("/livez")[0] == 200
        issuer.answer = None
        eventually(consumer.ready, what="the daemon is ready")
        asked = len(issuer.requests)
        eventually(lambda: len(issuer.requests) >= asked + 4, what="tokens are renewed")
        export(sample_data, environment)

        issuer.answer = lambda _: (401, b"{}")
        eventually(
            lambda: any("rejects the client (401)" in each for each in messages(consumer)),
            what=f"the daemon says why it gets no token, see {consumer.log}",
        )
        eventually(lambda: not consumer.ready(), what="the last token has expired")
        assert consumer.get("/livez")[0] == 200
        issuer.answer = None
        export(sample_data, environment)
        eventually(consumer.ready, what="the daemon is ready again")
        assert consumer.process.poll() is None

    assert not any("Traceback" in line for line in consumer.log.read_text().splitlines())
