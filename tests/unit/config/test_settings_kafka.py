import os

import pytest

from config.settings import Misconfigured, load

TLS = {"KAFKA_SECURITY_PROTOCOL": "SSL"}
SASL = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}
CERTIFICATE = {"KAFKA_SSL_CERTIFICATE_LOCATION": "/c.pem", "KAFKA_SSL_KEY_LOCATION": "/k.pem"}
PASSWORD = {"KAFKA_SASL_USERNAME": "waybill", "KAFKA_SASL_PASSWORD": "hush"}
URL = "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL"
OIDC = {
    "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    URL: "https://login.example.com/token/",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": "waybill",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": "hush",
}
MSK = {"KAFKA_SASL_MECHANISM": "AWS_MSK_IAM", "KAFKA_SASL_AWS_REGION": "eu-central-1"}

MSK_OVER_TLS = (
    "KAFKA_SASL_MECHANISM=AWS_MSK_IAM requires KAFKA_SECURITY_PROTOCOL=SASL_SSL, because MSK accepts it over TLS only"
)
CERTIFICATE_OVER_TLS = (
    "KAFKA_SSL_CERTIFICATE_LOCATION requires KAFKA_SECURITY_PROTOCOL to be SSL or SASL_SSL, but it is PLAINTEXT"
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("WAYBILL_", "KAFKA_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "values",
    [
        {},
        TLS,
        TLS | CERTIFICATE,
        TLS | CERTIFICATE | {"KAFKA_SSL_KEY_PASSWORD": "hush"},
        SASL | PASSWORD,
        SASL | PASSWORD | CERTIFICATE,
        SASL | OIDC,
        SASL | OIDC | {"KAFKA_SASL_OAUTHBEARER_SCOPE": "kafka"},
        SASL | MSK,
    ],
)
def test_every_way_to_log_in_can_be_set(values: dict[str, str]) -> None:
    load(values)


def test_the_url_of_the_token_endpoint_keeps_its_slash() -> None:
    assert load(SASL | OIDC).kafka_oauth_token_endpoint_url == "https://login.example.com/token/"


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        (
            SASL,
            [
                f"KAFKA_SASL_{name} is missing: the value of KAFKA_SECURITY_PROTOCOL requires it"
                for name in ("USERNAME", "PASSWORD")
            ],
        ),
        (
            SASL | {"KAFKA_SASL_MECHANISM": "OAUTHBEARER"},
            [
                f"{name} is missing: KAFKA_SASL_MECHANISM=OAUTHBEARER requires it"
                for name in OIDC
                if name != "KAFKA_SASL_MECHANISM"
            ],
        ),
        (
            SASL | {"KAFKA_SASL_MECHANISM": "AWS_MSK_IAM"},
            ["KAFKA_SASL_AWS_REGION is missing: KAFKA_SASL_MECHANISM=AWS_MSK_IAM requires it"],
        ),
        (OIDC, ["KAFKA_SASL_MECHANISM=OAUTHBEARER requires KAFKA_SECURITY_PROTOCOL=SASL_SSL, but it is PLAINTEXT"]),
        (MSK | TLS, ["KAFKA_SASL_MECHANISM=AWS_MSK_IAM requires KAFKA_SECURITY_PROTOCOL=SASL_SSL, but it is SSL"]),
        (
            MSK | {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
            [MSK_OVER_TLS],
        ),
        (
            SASL | OIDC | PASSWORD | {"KAFKA_SASL_MECHANISM": "PLAIN"},
            [
                f"{name} requires KAFKA_SASL_MECHANISM=OAUTHBEARER, but it is PLAIN"
                for name in OIDC
                if name != "KAFKA_SASL_MECHANISM"
            ],
        ),
        (
            SASL | OIDC | {"KAFKA_SASL_AWS_REGION": "eu-central-1"},
            ["KAFKA_SASL_AWS_REGION requires KAFKA_SASL_MECHANISM=AWS_MSK_IAM, but it is OAUTHBEARER"],
        ),
        (
            TLS | {"KAFKA_SSL_CERTIFICATE_LOCATION": "/c.pem"},
            ["KAFKA_SSL_KEY_LOCATION is missing: KAFKA_SSL_CERTIFICATE_LOCATION requires it"],
        ),
        (
            TLS | {"KAFKA_SSL_KEY_LOCATION": "/k.pem"},
            ["KAFKA_SSL_CERTIFICATE_LOCATION is missing: KAFKA_SSL_KEY_LOCATION requires it"],
        ),
        (
            TLS | {"KAFKA_SSL_KEY_PASSWORD": "hush"},
            ["KAFKA_SSL_KEY_LOCATION is missing: KAFKA_SSL_KEY_PASSWORD requires it"],
        ),
        (
            CERTIFICATE,
            [CERTIFICATE_OVER_TLS],
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(values: dict[str, str], problems: list[str]) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(values)

    assert caught.value.problems == problems
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KAFKA_SECURITY_PROTOCOL", "TLS", "Input should be 'PLAINTEXT'"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI", "'OAUTHBEARER' or 'AWS_MSK_IAM'"),
        (URL, "login.example.com/token", "must start with http:// or https://"),
        (
            URL,
            "https://waybill:hush@login.example.com/token",
            "contains a user: set the client id and the client secret",
        ),
        ("KAFKA_SASL_AWS_REGION", "Frankfurt", "should match pattern"),
    ],
)
def test_an_invalid_value_is_named_without_a_secret(name: str, value: str, said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(SASL | OIDC | {name: value})

    assert any(each.startswith(f"{name}: ") and said in each for each in caught.value.problems)
    assert "hush" not in str(caught.value)


def test_secrets_are_not_in_the_repr() -> None:
    assert "hush" not in repr(load(SASL | OIDC | CERTIFICATE | {"KAFKA_SSL_KEY_PASSWORD": "hush"}))
