import subprocess
import sys
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest

from config.errors import Unavailable
from config.settings import Misconfigured, load
from notify import ses
from notify.address import EmailAddress, parse_address
from notify.mailer import Envelope, Unanswered, Undeliverable
from notify.open_mailer import open_mailer
from notify.ses import SesRegion
from tests.services.process import free_port
from tests.support.certificates import make_authority
from tests.support.http_proxy import Cut, Forward, Response, http_proxy
from tests.support.ses_server import ACCOUNT, IDENTITIES, REGION, SEND, SesServer, ses_server

SENDER = EmailAddress("exports", "mail.example.com")
ADDRESS = "ada.secret@example.org"
HEALTHY = {"SendingEnabled": True, "EnforcementStatus": "HEALTHY", "ProductionAccessEnabled": True}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SesServer]:
    with ses_server() as running:
        use(monkeypatch, running.environment())
        running.verify("mail.example.com")
        yield running
        ses._open_client.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    ses._open_client.cache_clear()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def message() -> EmailMessage:
    made = EmailMessage(policy=SMTP)
    made["From"], made["To"], made["Subject"] = "Exporte <exports@mail.example.com>", ADDRESS, "Fertig: größe"
    made.set_content("text\n.\nünï\n", cte="quoted-printable")
    return made


def send(recipient: str = ADDRESS, sender: EmailAddress = SENDER) -> list[str]:
    steps: list[str] = []
    SesRegion(REGION).send(Envelope(sender, parse_address(recipient)), message(), lambda: steps.append("fence"))
    return steps


def test_an_email_is_sent_as_it_is_to_the_recipient_of_the_envelope(server: SesServer) -> None:
    assert send("bob@example.org") == ["fence"]

    ((source, recipients, sent),) = server.sent()
    assert (source, recipients) == ("exports@mail.example.com", ["bob@example.org"])
    assert (sent["Subject"], sent["To"]) == ("Fertig: größe", ADDRESS)
    assert sent.get_content().splitlines() == ["text", ".", "ünï"]


def test_nothing_is_sent_if_the_fence_raises(server: SesServer) -> None:
    def lost() -> None:
        raise Unavailable("the lease was lost")

    with pytest.raises(Unavailable, match="the lease was lost"):
        SesRegion(REGION).send(Envelope(SENDER, parse_address(ADDRESS)), message(), lost)

    assert server.sent() == []


@pytest.mark.parametrize(
    ("status", "code", "text", "raised", "said"),
    [
        (429, "TooManyRequestsException", "", Unavailable, "SES limits the emails of this account (TooManyRequests"),
        (400, "LimitExceededException", "", Unavailable, "SES limits the emails of this account"),
        (400, "ThrottlingException", "Maximum sending rate exceeded.", Unavailable, "SES limits the emails"),
        (400, "SendingPausedException", "", Unavailable, "SES has suspended the sending of emails in eu-central-1"),
        (400, "AccountSuspendedException", "", Unavailable, "SES has suspended the sending of emails"),
        (400, "MailFromDomainNotVerifiedException", "", Unavailable, "SES rejected EMAIL_FROM_ADDRESS (MailFrom"),
        (
            400,
            "MessageRejected",
            f"Email address is not verified. The following identities failed the check: {ADDRESS}",
            Unavailable,
            "an address that is not verified (MessageRejected): verify EMAIL_FROM_ADDRESS or its domain in eu-",
        ),
        (400, "MessageRejected", f"spam for {ADDRESS}", Undeliverable, "SES rejected the message (MessageRejected)"),
        (400, "BadRequestException", f"Illegal address {ADDRESS}", Undeliverable, "SES rejected the message (BadReq"),
        (404, "NotFoundException", "", Unavailable, "SES did not accept the email (NotFoundException)"),
        (403, "AccessDeniedException", f"{ADDRESS}", Unavailable, "SES rejected the credentials (AccessDenied"),
        (403, "ExpiredTokenException", "", Unavailable, "do they allow ses:SendEmail and ses:SendRawEmail?"),
        (403, "InvalidSignatureException", "", Unavailable, "SES rejected the credentials"),
        (503, "ServiceUnavailable", "", Unavailable, "SES did not accept the email (ServiceUnavailable)"),
        (500, "InternalFailure", "", Unanswered, "did not say whether it accepts it (InternalFailure)"),
        (504, "GatewayTimeout", "", Unanswered, "did not say whether it accepts it"),
    ],
)
def test_refusals_are_sorted_by_whether_to_retry_and_contain_no_address(
    server: SesServer, status: int, code: str, text: str, raised: type[Exception], said: str
) -> None:
    server.answer(SEND, status, code, text)

    with pytest.raises(raised) as caught:
        send()

    assert said in str(caught.value)
    assert "ada.secret" not in str(caught.value)


def test_an_email_whose_response_is_lost_is_unanswered_and_not_sent_again(server: SesServer) -> None:
    def lose(forward: Forward) -> Response:
        list(forward().body)
        raise Cut

    server.proxy.add(lambda request: request.path == SEND, lose)

    with pytest.raises(
        Unanswered, match=r"SES may have received the email, but did not respond \(the connection was closed\)"
    ):
        send()

    assert len(server.sent()) == 1


def test_a_response_that_takes_too_long_is_unanswered(server: SesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ses, "ANSWER_SECONDS", 0.2)
    given_up = threading.Event()

    def wait(forward: Forward) -> Response:
        list(forward().body)
        assert given_up.wait(20)
        raise Cut

    server.proxy.add(lambda request: request.path == SEND, wait)

    with pytest.raises(Unanswered, match=r"did not respond \(timeout\)"):
        send()
    given_up.set()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b"\xff"])
def test_rubbish_instead_of_a_response_is_unanswered(server: SesServer, body: bytes) -> None:
    server.proxy.add(
        lambda request: request.path == SEND,
        lambda _: Response(200, {}, iter([body])),
    )

    with pytest.raises(Unanswered):
        send()


def test_a_connection_that_is_refused_is_retried(server: SesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, server.environment() | {"AWS_ENDPOINT_URL_SESV2": f"http://127.0.0.1:{free_port()}"})

    with pytest.raises(Unavailable, match=r"SES in eu-central-1 is unavailable \(connection refused\)"):
        send()


def test_a_certificate_that_is_not_trusted_is_retried(
    server: SesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make_authority(tmp_path)
    with http_proxy(server.proxy.url, authority.server_context()) as encrypted:
        use(monkeypatch, server.environment() | {"AWS_ENDPOINT_URL_SESV2": encrypted.url})

        with pytest.raises(Unavailable, match=r"is unavailable .*certificate is not trusted"):
            send()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        mailer = open_mailer(load(server.environment()))
        assert mailer is not None
        mailer.send(Envelope(SENDER, parse_address(ADDRESS)), message(), lambda: None)

    assert len(server.sent()) == 1


def test_missing_credentials_are_retried_before_anything_is_sent(
    server: SesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = server.environment()
    use(monkeypatch, {name: value for name, value in environment.items() if not name.endswith("_KEY_ID")})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")

    with pytest.raises(Unavailable, match="there are no AWS credentials for SES"):
        send()


@pytest.mark.parametrize(("recipient", "raised"), [("zoë@example.org", Undeliverable), (ADDRESS, Unavailable)])
def test_an_address_that_ses_can_not_take_is_named(server: SesServer, recipient: str, raised: type[Exception]) -> None:
    sender = SENDER if not recipient.isascii() else EmailAddress("zoë", "mail.example.com")

    with pytest.raises(raised, match="not ASCII, and SES does not support SMTPUTF8"):
        send(recipient, sender)

    assert server.sent() == []


@pytest.mark.parametrize("identity", ["exports@mail.example.com", "mail.example.com", "example.com"])
def test_the_check_accepts_an_address_or_a_domain_above_it(server: SesServer, identity: str) -> None:
    server.describe(ACCOUNT, **HEALTHY)
    server.describe(f"{IDENTITIES}{identity.replace('@', '%40')}", VerifiedForSendingStatus=True)
    server.answer(IDENTITIES, 404, "NotFoundException")

    assert SesRegion(REGION).check(SENDER) == []
    assert server.sent() == []


@pytest.mark.parametrize("known", [True, False])
def test_the_check_names_a_sender_that_is_not_verified(server: SesServer, known: bool) -> None:
    server.describe(ACCOUNT, **HEALTHY)
    if known:
        server.describe(f"{IDENTITIES}mail.example.com", VerifiedForSendingStatus=False)
    server.answer(IDENTITIES, 404, "NotFoundException")

    with pytest.raises(Unavailable) as caught:
        SesRegion(REGION).check(SENDER)

    assert str(caught.value) == (
        "EMAIL_FROM_ADDRESS is not verified in SES in eu-central-1: verify it or its domain mail.example.com"
    )


@pytest.mark.parametrize(
    ("account", "doubts"),
    [
        (HEALTHY, []),
        (
            HEALTHY | {"ProductionAccessEnabled": False},
            ["SES in eu-central-1 is in the sandbox and sends to verified addresses only: request production access"],
        ),
        (
            HEALTHY | {"EnforcementStatus": "PROBATION"},
            ["SES is reviewing the account in eu-central-1, and may suspend the sending of emails"],
        ),
    ],
)
def test_the_check_tells_what_may_prevent_emails(
    server: SesServer, account: dict[str, object], doubts: list[str]
) -> None:
    server.describe(ACCOUNT, **account)
    server.describe(IDENTITIES, VerifiedForSendingStatus=True)

    assert SesRegion(REGION).check(SENDER) == doubts


@pytest.mark.parametrize("account", [{"SendingEnabled": False}, {"EnforcementStatus": "SHUTDOWN"}])
def test_the_check_names_an_account_that_may_not_send(server: SesServer, account: dict[str, object]) -> None:
    server.describe(ACCOUNT, **(HEALTHY | account))

    with pytest.raises(Unavailable, match="SES has suspended the sending of emails in eu-central-1"):
        SesRegion(REGION).check(SENDER)


def test_the_check_needs_no_rights_but_says_what_it_could_not_try(server: SesServer) -> None:
    server.answer(ACCOUNT, 403, "AccessDeniedException")
    server.answer(IDENTITIES, 403, "AccessDeniedException")

    assert SesRegion(REGION).check(SENDER) == [
        "whether SES sends emails could not be checked: allow ses:GetAccount for that",
        "whether SES knows EMAIL_FROM_ADDRESS could not be checked: allow ses:GetEmailIdentity for that",
    ]


def test_the_check_names_a_service_that_does_not_respond(server: SesServer) -> None:
    server.answer(ACCOUNT, 500, "InternalFailure")

    with pytest.raises(Unavailable, match="SES in eu-central-1 does not respond"):
        SesRegion(REGION).check(SENDER)


@pytest.mark.parametrize("url", ["no URL", "http://host.example:99999", "http://[::1"])
def test_an_endpoint_that_is_no_url_is_named(server: SesServer, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    use(monkeypatch, server.environment() | {"AWS_ENDPOINT_URL_SESV2": url})

    with pytest.raises(Unavailable, match="are AWS_ENDPOINT_URL and"):
        SesRegion(REGION).check(SENDER)


def test_a_code_of_another_server_is_not_repeated(server: SesServer) -> None:
    server.answer(SEND, 400, f"<b>{ADDRESS}")

    with pytest.raises(Unavailable, match="did not accept the email") as caught:
        send()
    assert ADDRESS not in str(caught.value)


def test_the_check_names_credentials_that_are_rejected(server: SesServer) -> None:
    server.answer(ACCOUNT, 403, "UnrecognizedClientException")

    with pytest.raises(Unavailable, match="SES rejected the credentials"):
        SesRegion(REGION).check(SENDER)


@pytest.mark.parametrize(
    "url", ["ses://", "ses://Frankfurt", "ses://us-east-1?x=y", "ses://key:hush@us-east-1", "ses://us-east-1/path"]
)
def test_an_invalid_url_is_named_and_not_quoted(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"SMTP_CONNECTION_URL: must name a region and nothing else") as caught:
        load({"SMTP_CONNECTION_URL": url})

    assert "hush" not in str(caught.value)


def test_the_url_names_the_region() -> None:
    for url in ("ses://us-gov-west-1", "ses://us-gov-west-1/"):
        settings = load({"SMTP_CONNECTION_URL": url})

        assert open_mailer(settings) == SesRegion("us-gov-west-1", settings.ssl_cert_file)


@pytest.mark.slow
def test_a_notifier_with_an_smtp_server_does_not_load_the_library_of_aws() -> None:
    program = (
        "import sys; from cli import build; from config.settings import load; import notify.app; "
        "from notify.deliver import read_transport; "
        "read_transport(load({'SMTP_CONNECTION_URL': 'smtp://mail', 'EMAIL_FROM_ADDRESS': 'a@b.test'})); "
        "print([name for name in ('botocore', 'aws_msk_iam_sasl_signer') if name in sys.modules])"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (ran.stdout, ran.stderr) == ("[]\n", "")
