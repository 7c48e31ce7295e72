from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.checks.kafka import _lacks, find_user
from config.settings import load
from runtime import kafka_tokens
from tests.support.certificates import make_authority
from tests.support.token_issuer import CLIENT, SECRET, TokenIssuer, token_issuer

SASL = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    kafka_tokens._open_endpoint.cache_clear()
    with token_issuer() as running:
        yield running


def test_a_client_without_a_login_is_anonymous() -> None:
    assert find_user(load({})) == find_user(load({"KAFKA_SECURITY_PROTOCOL": "SSL"})) == "ANONYMOUS"


def test_a_user_with_a_password_has_the_name_of_the_user() -> None:
    login = {"KAFKA_SASL_USERNAME": "exporter", "KAFKA_SASL_PASSWORD": "secret"}

    assert find_user(load(SASL | login)) == "exporter"


def test_a_user_with_a_certificate_has_the_name_of_its_subject(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    certificate = {
        "KAFKA_SSL_CERTIFICATE_LOCATION": str(authority.certificate),
        "KAFKA_SSL_KEY_LOCATION": str(authority.key),
    }

    user = find_user(load({"KAFKA_SECURITY_PROTOCOL": "SSL"} | certificate))

    assert user == "CN=127.0.0.1"


@pytest.mark.parametrize(("token", "user"), [(None, CLIENT), ("opaque", "the-client"), ("a.b.c", "the-client")])
def test_a_user_with_a_token_has_the_name_of_its_subject(
    issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch, token: str | None, user: str
) -> None:
    client = CLIENT if token is None else "the-client"
    monkeypatch.setattr("tests.support.token_issuer.CLIENT", client)
    if token is not None:
        monkeypatch.setattr(issuer, "issue", lambda: token)
    values = {
        "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": issuer.token_url,
        "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": client,
        "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": SECRET,
    }

    assert find_user(load(SASL | values)) == user


def test_a_role_has_rights_by_its_policy_and_others_by_acls() -> None:
    role = find_user(load(SASL | {"KAFKA_SASL_MECHANISM": "AWS_MSK_IAM", "KAFKA_SASL_AWS_REGION": "us-east-1"}))

    assert _lacks(role, "READ", "topic", "requests") == (
        "the AWS role of this process may not READ topic requests: allow it in the role's IAM policy"
    )
    assert "--allow-principal 'User:CN=a b,O=c' --operation Read --topic requests`" in _lacks(
        "CN=a b,O=c", "READ", "topic", "requests"
    )
