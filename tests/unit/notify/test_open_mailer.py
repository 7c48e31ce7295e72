from collections.abc import Iterator

import pytest
from aiosmtpd.smtp import AuthResult

from config.settings import Misconfigured, load
from notify.open_mailer import open_mailer
from notify.smtp_url import parse_server
from tests.support.notices import mail_server
from tests.support.token_issuer import CLIENT, REFRESH, SECRET, TokenIssuer, token_issuer
from tests.unit.notify.test_smtp import SENDER, xoauth2

OAUTH = {
    "SMTP_OAUTH_TOKEN_ENDPOINT_URL": "https://login.example.com/token",
    "SMTP_OAUTH_CLIENT_ID": "waybill",
    "SMTP_OAUTH_CLIENT_SECRET": "hush",
}
URL = {"SMTP_CONNECTION_URL": "smtp://ada%40example.com@mail.example.com"}
WITH_A_USER = (
    "SMTP_CONNECTION_URL: with SMTP_OAUTH_TOKEN_ENDPOINT_URL it must be smtp:// or smtps:// with a user and no password"
)


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    with token_issuer() as running:
        yield running


def test_without_a_url_there_is_no_mail_service() -> None:
    assert open_mailer(load({})) is None


def test_a_url_alone_names_a_server() -> None:
    assert open_mailer(load({"SMTP_CONNECTION_URL": "smtp://mail:25"})) == parse_server("smtp://mail:25")


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        (
            {"SMTP_OAUTH_SCOPE": "mail"} | URL,
            [
                "SMTP_OAUTH_TOKEN_ENDPOINT_URL is missing: SMTP_OAUTH_SCOPE requires it",
                "SMTP_OAUTH_CLIENT_ID is missing: SMTP_OAUTH_SCOPE requires it",
                "SMTP_OAUTH_CLIENT_SECRET or SMTP_OAUTH_REFRESH_TOKEN is missing: SMTP_OAUTH_SCOPE requires one",
            ],
        ),
        (OAUTH, ["SMTP_CONNECTION_URL is missing: SMTP_OAUTH_TOKEN_ENDPOINT_URL requires it"]),
        (OAUTH | {"SMTP_CONNECTION_URL": "ses://us-east-1"}, [WITH_A_USER]),
        (OAUTH | {"SMTP_CONNECTION_URL": "smtp://mail.example.com"}, [WITH_A_USER]),
        (OAUTH | {"SMTP_CONNECTION_URL": "smtp://ada:hush@mail.example.com"}, [WITH_A_USER]),
    ],
)
def test_settings_of_oauth_that_lack_another_one_are_named(values: dict[str, str], problems: list[str]) -> None:
    with pytest.raises(Misconfigured) as caught:
        open_mailer(load(values))

    assert caught.value.problems == problems


@pytest.mark.parametrize(
    ("login", "grant"),
    [
        ({"SMTP_OAUTH_CLIENT_SECRET": SECRET}, "client_credentials"),
        ({"SMTP_OAUTH_CLIENT_SECRET": SECRET, "SMTP_OAUTH_REFRESH_TOKEN": REFRESH}, "refresh_token"),
    ],
)
def test_tokens_of_the_endpoint_log_in_to_the_server(
    issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch, login: dict[str, str], grant: str
) -> None:
    monkeypatch.setattr(issuer, "issue", lambda: "the-token")
    seen: list[bytes] = []
    with mail_server(auth_require_tls=False, authenticator=lambda *_: AuthResult(success=False)) as running:
        vars(running)["auth_XOAUTH2"] = xoauth2("the-token", seen)
        values = {
            "SMTP_CONNECTION_URL": f"smtp://ada@127.0.0.1:{running.port}",
            "SMTP_OAUTH_TOKEN_ENDPOINT_URL": issuer.token_url,
            "SMTP_OAUTH_CLIENT_ID": CLIENT,
        }
        mailer = open_mailer(load(values | login))
        assert mailer is not None
        mailer.check(SENDER)
        mailer.check(SENDER)

    assert len(seen) == 2
    assert [each.form["grant_type"] for each in issuer.requests] == [grant]
