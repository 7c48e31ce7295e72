import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import SigV4QueryAuth  # type: ignore[import-untyped] # it ships no types
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped] # the same
from botocore.credentials import Credentials  # type: ignore[import-untyped] # the same

from config.errors import Unavailable
from config.settings import Misconfigured, Settings, load
from runtime import kafka_tokens
from runtime.kafka import _TokenProvider
from runtime.kafka_admin import check_topics
from runtime.kafka_clients import client_config
from runtime.kafka_tokens import open_tokens, sign_for_msk
from runtime.threads import in_thread
from runtime.tokens import Token, Tokens
from tests.support.token_issuer import CLIENT, SECRET, TokenIssuer, refusal, token_issuer

KEYS = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    with token_issuer() as running:
        yield running


@pytest.fixture(autouse=True)
def no_tokens_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka_tokens._open_endpoint.cache_clear()
    kafka_tokens._open_signer.cache_clear()
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")


def oidc(issuer: TokenIssuer, **changes: str) -> Settings:
    return load(
        {
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": issuer.token_url,
            "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": CLIENT,
            "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": SECRET,
            **changes,
        }
    )


def msk() -> Settings:
    return load(
        {
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM",
            "KAFKA_SASL_AWS_REGION": "eu-central-1",
        }
    )


def found_tokens(settings: Settings) -> Tokens:
    tokens = open_tokens(settings)
    assert tokens is not None
    return tokens


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_SSL"])
def test_logins_without_a_token_have_no_source_of_tokens(protocol: str) -> None:
    login = {"KAFKA_SASL_USERNAME": "waybill", "KAFKA_SASL_PASSWORD": "secret"}
    values = {"KAFKA_SECURITY_PROTOCOL": protocol, **login}

    assert open_tokens(load(values)) is None


def test_all_clients_of_a_process_share_a_token(issuer: TokenIssuer) -> None:
    first, second = client_config(oidc(issuer)), client_config(oidc(issuer))

    value, until = first["oauth_cb"]("")
    in_faust = asyncio.run(_TokenProvider(found_tokens(oidc(issuer))).token())

    assert second["oauth_cb"]("") == (value, until)
    assert in_faust == value
    assert len(issuer.requests) == 1
    assert first["sasl.mechanism"] == "OAUTHBEARER"
    assert SECRET not in str(first)


def test_other_settings_have_other_tokens(issuer: TokenIssuer) -> None:
    found_tokens(oidc(issuer)).get()
    found_tokens(oidc(issuer, KAFKA_SASL_OAUTHBEARER_SCOPE="kafka")).get()

    assert [each.form.get("scope") for each in issuer.requests] == [None, "kafka"]


def test_a_token_that_can_not_be_had_is_the_reason_why_kafka_can_not_be_used(issuer: TokenIssuer) -> None:
    issuer.answer = lambda _: refusal(401, "invalid_client")

    with pytest.raises(ConnectionError) as caught:
        check_topics(oidc(issuer), "export-requests")

    assert str(caught.value) == (
        f"there is no token for Kafka: the token endpoint {issuer.url.removeprefix('http://')} rejects the client "
        "(401 invalid_client): are KAFKA_SASL_OAUTHBEARER_CLIENT_ID and KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET right?"
    )


def test_faust_waits_for_a_token_without_blocking_the_event_loop() -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def fetch(now: float) -> Token:
        asked.set()
        assert may_answer.wait(20), "the event loop is blocked"
        return Token("token", now + 60, 60)

    async def run() -> str:
        waiting = asyncio.create_task(_TokenProvider(Tokens(fetch)).token())
        await in_thread(asked.wait, 20)
        may_answer.set()  # only a loop that goes on gets here
        return await waiting

    assert asyncio.run(run()) == "token"


def test_faust_gets_an_error_that_makes_it_connect_again(issuer: TokenIssuer) -> None:
    issuer.answer = lambda _: (503, b"")

    with pytest.raises(ConnectionError, match=r"is unavailable \(503\)"):
        asyncio.run(_TokenProvider(found_tokens(oidc(issuer))).token())


def decode(token: str) -> tuple[str, dict[str, str]]:
    """The host of the URL in a token of MSK, and its parameters."""
    url = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    return url.netloc, {name: values[0] for name, values in parse_qs(url.query).items()}


@pytest.mark.parametrize("session", [None, "a session's token/+="])
def test_a_token_for_msk_is_a_url_signed_with_the_credentials_of_the_process(
    monkeypatch: pytest.MonkeyPatch, session: str | None
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS[1])
    if session is not None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", session)
    now = datetime.now(UTC).timestamp()

    token = sign_for_msk("eu-central-1", now)

    host, signed = decode(token.value)
    again = AWSRequest("GET", f"https://{host}/", params={"Action": "kafka-cluster:Connect"})
    signer = SigV4QueryAuth(Credentials(*KEYS, session), "kafka-cluster", "eu-central-1", expires=900)
    with monkeypatch.context() as patched:
        time = datetime.strptime(signed["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        patched.setattr("botocore.auth.get_current_datetime", lambda *_, **__: time.replace(tzinfo=None))
        signer.add_auth(again)
    expected = {name: values[0] for name, values in parse_qs(urlsplit(again.url).query).items()}
    assert host == "kafka.eu-central-1.amazonaws.com"
    assert {name: value for name, value in signed.items() if name != "User-Agent"} == expected
    assert signed["X-Amz-Credential"].endswith("/eu-central-1/kafka-cluster/aws4_request")
    assert 890 < token.expires_at - now <= 901


def test_both_kinds_of_clients_log_in_to_msk_with_signed_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS[1])

    config: dict[str, Any] = client_config(msk())
    value, _ = config["oauth_cb"]("")

    assert config["sasl.mechanism"] == "OAUTHBEARER"
    assert decode(value)[1]["Action"] == "kafka-cluster:Connect"
    assert asyncio.run(_TokenProvider(found_tokens(msk())).token()) == value
    assert KEYS[1] not in json.dumps(decode(value))


def test_missing_aws_credentials_are_named() -> None:
    with pytest.raises(Unavailable, match="there are no AWS credentials: does the process have a role"):
        sign_for_msk("eu-central-1", 0)


def test_incomplete_aws_credentials_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS[0])

    with pytest.raises(Unavailable, match=r"PartialCredentialsError\): are the AWS credentials of the process right"):
        sign_for_msk("eu-central-1", 0)


def test_a_missing_signer_is_named_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "aws_msk_iam_sasl_signer", None)

    with pytest.raises(Misconfigured, match=r"the package aws-msk-iam-sasl-signer-python: run pip install '\.\[msk\]'"):
        client_config(msk())
