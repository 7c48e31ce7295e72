"""Logins that a Kafka broker refuses, and what operators are told about them; tokens that expire under a producer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from cli import admin
from config.errors import Unavailable
from config.settings import load
from runtime import kafka_admin, kafka_tokens
from runtime.dead_letters import read_all
from runtime.kafka_admin import check_topics
from runtime.kafka_clients import build_producer
from runtime.publisher import Outgoing, Publisher
from tests.services import choice, kafka_logins
from tests.services.kafka_logins import SecuredKafka
from tests.support.certificates import make_authority
from tests.support.daemons import eventually
from tests.support.token_issuer import TokenIssuer, refusal, token_issuer

TOPIC = "logins"


@pytest.fixture(scope="module")
def secured(services_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    if reason := choice.why_not("kafka"):
        pytest.skip(reason)
    authority = make_authority(tmp_path_factory.mktemp("authority"))
    with token_issuer() as issuer, kafka_logins.start(services_folder / "refusing-kafka", authority, issuer) as broker:
        broker.plain.create_topics(TOPIC, partitions=1)
        yield broker


@pytest.fixture
def issuer(secured: SecuredKafka) -> Iterator[TokenIssuer]:
    """The issuer, whose changes end with the test."""
    lifetime, audience = secured.issuer.lifetime, secured.issuer.audience
    kafka_tokens._open_endpoint.cache_clear()
    yield secured.issuer
    secured.issuer.lifetime, secured.issuer.audience, secured.issuer.answer = lifetime, audience, None
    kafka_tokens._open_endpoint.cache_clear()


def explain(settings: dict[str, str]) -> str:
    with pytest.raises(ConnectionError) as caught:
        check_topics(load(settings), TOPIC)
    return str(caught.value)


@pytest.mark.parametrize("login", ["password", "certificate", "token"])
@pytest.mark.usefixtures("issuer")
def test_every_login_is_accepted_by_every_kind_of_client(secured: SecuredKafka, login: str) -> None:
    topic = f"letters-{login}"
    secured.plain.create_topics(topic, partitions=1)
    settings = load(secured.environment(login) | {"WAYBILL_DEAD_LETTER_TOPIC": topic})

    check_topics(settings, topic)
    answers = Publisher(lambda: build_producer(settings)).publish([Outgoing(topic, b"key", b"value")])
    letters = list(read_all(settings))

    assert answers == [None]
    assert [letter.value for letter in letters] == [b"value"]


def test_clients_without_a_token_say_why(secured: SecuredKafka, issuer: TokenIssuer) -> None:
    issuer.answer = lambda _: refusal(401, "invalid_client")
    settings = load(secured.environment("token") | {"WAYBILL_DEAD_LETTER_TOPIC": TOPIC})
    publisher, message = Publisher(lambda: build_producer(settings)), [Outgoing(TOPIC, b"key", b"value")]

    (error,) = publisher.publish(message)
    with pytest.raises(Unavailable, match="rejects the client"):
        list(read_all(settings))
    issuer.answer = None

    assert error is not None
    assert "rejects the client (401 invalid_client)" in error.str()
    # The endpoint is left alone for a second after a failure.
    eventually(lambda: publisher.publish(message)[0] is None, what="the producer is built")


def test_a_wrong_password_is_named(secured: SecuredKafka) -> None:
    said = explain(secured.environment("password") | {"KAFKA_SASL_PASSWORD": "hush"})

    assert said == (
        "Kafka does not answer: the brokers reject the login: are KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and "
        "KAFKA_SASL_PASSWORD right?"
    )


def test_a_command_names_a_wrong_password(secured: SecuredKafka, capsys: pytest.CaptureFixture[str]) -> None:
    environment = secured.environment("password") | {"KAFKA_SASL_PASSWORD": "hush"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(admin, "TOPIC_SECONDS", 3.0)
        for name, value in environment.items():
            patched.setenv(name, value)
        with pytest.raises(typer.Exit):
            admin.topics()

    assert "the brokers reject the login: are KAFKA_SASL_MECHANISM" in capsys.readouterr().err


def test_a_missing_certificate_is_named(secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_admin, "CHECK_SECONDS", 2.0)
    login = secured.environment("certificate")

    said = explain({name: value for name, value in login.items() if name not in _CERTIFICATE})

    assert "must KAFKA_SSL_CERTIFICATE_LOCATION name a certificate of this client" in said


_CERTIFICATE = {"KAFKA_SSL_CERTIFICATE_LOCATION", "KAFKA_SSL_KEY_LOCATION"}


def test_a_certificate_of_another_authority_is_named(
    secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_admin, "CHECK_SECONDS", 2.0)
    other = make_authority(tmp_path / "other", "Another authority")
    changed = {"KAFKA_SSL_CERTIFICATE_LOCATION": str(other.certificate), "KAFKA_SSL_KEY_LOCATION": str(other.key)}

    said = explain(secured.environment("certificate") | changed)

    assert "do the brokers trust the certificate of KAFKA_SSL_CERTIFICATE_LOCATION" in said


def test_a_token_for_another_audience_is_named(secured: SecuredKafka, issuer: TokenIssuer) -> None:
    issuer.audience = "elsewhere"

    said = explain(secured.environment("token"))

    assert said.startswith("Kafka does not answer: the brokers reject the login: do they trust the issuer behind")


def test_a_producer_logs_in_again_before_its_tokens_expire(secured: SecuredKafka, issuer: TokenIssuer) -> None:
    issuer.lifetime = 4
    settings = load(secured.environment("token"))
    publisher = Publisher(lambda: build_producer(settings))
    message = [Outgoing(TOPIC, b"key", b"value")]

    assert publisher.publish(message) == [None]
    asked = len(issuer.requests)
    # Nobody calls the producer meanwhile: librdkafka renews tokens in a thread of its own.
    eventually(lambda: len(issuer.requests) >= asked + 3, what="tokens are renewed")

    assert publisher.publish(message) == [None]
