import asyncio
import base64
import hmac
import socket
import ssl
import struct
import subprocess
import threading
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiosmtpd.smtp import AuthResult

from config.errors import Unavailable
from config.settings import Misconfigured
from notify import smtp
from notify.address import EmailAddress, parse_address
from notify.mailer import Envelope, Unanswered, Undeliverable
from notify.smtp import Encryption, SmtpServer
from notify.smtp_url import parse_server
from runtime.tokens import Token, Tokens
from tests.services.process import free_port
from tests.support.notices import CUT, MailServer, mail_server

SENDER = EmailAddress("from", "waybill.test")
ADDRESS = "ada.secret@example.com"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", path.with_suffix(".crt")),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def message(recipient: str = ADDRESS) -> EmailMessage:
    made = EmailMessage(policy=SMTP)
    made["From"], made["To"], made["Subject"] = "exports@example.com", recipient, "Ready"
    made.set_content("text", cte="quoted-printable")
    return made


def send(url: str, composed: EmailMessage | None = None, recipient: str = ADDRESS, sender: str = "exports") -> None:
    envelope = Envelope(EmailAddress(sender, "example.com"), parse_address(recipient))
    parse_server(url).send(envelope, composed or message(recipient))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example", SmtpServer("mail.example", 587, Encryption.OFFERED)),
        ("smtp://mail.example:25/", SmtpServer("mail.example", 25, Encryption.OFFERED)),
        ("smtps://mail.example", SmtpServer("mail.example", 465, Encryption.IMPLICIT)),
        ("smtp://mail.example:465/?secure=true", SmtpServer("mail.example", 465, Encryption.IMPLICIT)),
        ("smtp://mail.example?requireTLS=true", SmtpServer("mail.example", 587, Encryption.REQUIRED)),
        ("smtp://mail.example?requireTls=false", SmtpServer("mail.example", 587, Encryption.OFFERED)),
        ("smtp://mail.example?ignoreTLS=true&pool=true", SmtpServer("mail.example", 587, Encryption.NONE)),
        (
            "smtps://ada%40example.com:p%40ss%2Fw%3Ard@mail.example:2465?tls.rejectUnauthorized=false&name=me.example",
            SmtpServer(
                "mail.example",
                2465,
                Encryption.IMPLICIT,
                "ada@example.com",
                "p@ss/w:rd",
                verify=False,
                ehlo="me.example",
            ),
        ),
        ("smtp://[::1]:2525", SmtpServer("::1", 2525, Encryption.OFFERED)),
    ],
)
def test_the_url_sets_host_port_encryption_and_login(url: str, expected: SmtpServer) -> None:
    assert parse_server(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        *("smtp://", "smtp://user:hunter2/@mail.example", "smtp://mail.example:port", "smtp://[::1", "http://x"),
        *("smtp://ada:hunter2@mail.example?name=a%0d%0aRSET", "smtp://mail.example?name=zo%C3%AB.example"),
        *(f"smtp://mail.example?{name}=maybe" for name in ("requireTLS", "secure", "tls.rejectUnauthorized")),
    ],
)
def test_an_invalid_url_is_rejected_and_not_quoted(url: str) -> None:
    with pytest.raises(Misconfigured, match="SMTP_CONNECTION_URL: ") as raised:
        parse_server(url)

    assert "hunter2" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_the_password_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(parse_server("smtp://ada:hunter2@mail.example"))


def test_an_email_is_delivered(server: MailServer) -> None:
    send(server.url)

    assert [each["Subject"] for each in server.messages] == ["Ready"]
    assert server.recipients == [ADDRESS]


@pytest.mark.parametrize("answer", ["421 later", "554 no", CUT])
def test_an_accepted_email_stays_accepted_when_quit_fails(server: MailServer, answer: str) -> None:
    server.quit = answer

    send(server.url)

    assert len(server.taken) == 1


@pytest.mark.parametrize(
    ("step", "answer", "raised", "expected"),
    [
        ("rcpt", "550 5.1.1 <ada.secret@example.com> unknown", Undeliverable, "rejected the recipient (550 5.1.1)"),
        ("rcpt", "450 4.2.0 greylisted, ada.secret", Unavailable, "rejected the recipient (450 4.2.0)"),
        ("rcpt", "421 go away", Unavailable, "rejected the recipient (421)"),
        ("rcpt", "552 5.2.2 mailbox full", Undeliverable, "rejected the recipient (552 5.2.2)"),
        ("data", "554 5.7.1 spam from ada.secret", Undeliverable, "rejected the message (554 5.7.1)"),
        ("data", "451 4.3.0 try later", Unavailable, "rejected the message (451 4.3.0)"),
        ("mail", "550 5.7.0 not you", Unavailable, "rejected EMAIL_FROM_ADDRESS (550 5.7.0)"),
        ("mail", "451 busy", Unavailable, "rejected EMAIL_FROM_ADDRESS (451)"),
    ],
)
def test_rejections_are_sorted_by_code_and_contain_no_address(
    server: MailServer, step: str, answer: str, raised: type[Exception], expected: str
) -> None:
    setattr(server, step, answer)

    with pytest.raises(raised) as caught:
        send(server.url)

    assert expected in str(caught.value)
    assert "ada.secret" not in str(caught.value)
    assert server.taken == []


@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("answer", ["200 ok", "251 forwarded", "252 accepted, not verified"])
def test_every_positive_code_is_an_acceptance(server: MailServer, step: str, answer: str) -> None:
    setattr(server, step, answer)
    taken: list[None] = []
    server.before_answer = lambda _: taken.append(None)

    send(server.url)

    assert len(taken) == 1


@pytest.mark.parametrize("answer", ["OK queued", "150 wait", "354 go on"])
def test_a_response_to_the_message_that_decides_nothing_is_unanswered(server: MailServer, answer: str) -> None:
    server.data = answer

    with pytest.raises(Unanswered, match="did not say whether"):
        send(server.url)


def test_a_connection_lost_before_the_response_is_unanswered(server: MailServer) -> None:
    server.before_answer = lambda transport: transport.abort()

    with pytest.raises(Unanswered, match=r"received the email but did not respond \(it closed the connection\)"):
        send(server.url)

    assert len(server.taken) == 1


def test_the_response_to_the_message_has_a_longer_timeout(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "TIMEOUT_SECONDS", 2.0)
    server.answer_data = lambda: asyncio.sleep(3)

    send(server.url)

    monkeypatch.setattr(smtp, "ANSWER_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(Unanswered, match="timeout"):
        send(server.url)


@pytest.mark.slow
def test_a_connection_lost_within_the_message_is_retried() -> None:
    def cut(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rwb") as lines:
            for answer in (b"220 hi", b"250 hello", b"250 from", b"250 to", b"354 go on"):
                lines.write(answer + b"\r\n")
                lines.flush()
                if answer[:3] != b"354":
                    lines.readline()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=cut, args=(listening,))
        thread.start()
        large = message()
        large.set_content("line\n" * 4_000_000, cte="quoted-printable")
        with pytest.raises(Unavailable, match="is unavailable"):
            send(f"smtp://127.0.0.1:{listening.getsockname()[1]}", large)
        thread.join(20)


def test_lines_that_begin_with_a_dot_arrive_unchanged(server: MailServer) -> None:
    dotted = message()
    dotted.set_content(".\n..\n.text\n\n.", cte="quoted-printable")

    send(server.url, dotted)

    assert server.messages[0].get_content() == ".\r\n..\r\n.text\r\n\r\n.\r\n"


def test_a_refused_connection_is_retried() -> None:
    with pytest.raises(Unavailable, match="Connection refused"):
        send(f"smtp://127.0.0.1:{free_port()}")


def test_a_silent_server_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unavailable, match="is unavailable"):
        send(f"smtp://127.0.0.1:{silent.getsockname()[1]}")


def test_a_non_ascii_address_is_sent_to_a_server_with_smtputf8(server: MailServer) -> None:
    send(server.url, recipient="zoë@example.com")

    assert server.recipients == ["zoë@example.com"]
    assert [each["To"] for each in server.messages] == ["zoë@example.com"]


def test_a_non_ascii_address_is_undeliverable_without_smtputf8() -> None:
    with (
        mail_server() as plain,
        pytest.raises(Undeliverable, match="does not support SMTPUTF8"),
    ):
        send(plain.url, recipient="zoë@example.com")


def test_a_non_ascii_sender_is_retried_without_smtputf8() -> None:
    with mail_server() as plain, pytest.raises(Unavailable, match="EMAIL_FROM_ADDRESS is not ASCII"):
        send(plain.url, sender="zoë")


def test_the_envelope_decides_who_gets_the_email_and_not_the_header(server: MailServer) -> None:
    send(server.url, message("eve@evil.example"), recipient="ada@example.com")

    assert server.recipients == ["ada@example.com"]


@pytest.mark.parametrize(("password", "taken"), [("right p@ss", 1), ("wrong", 0)])
def test_the_login_of_the_url_is_used_and_a_rejected_one_is_retried(password: str, taken: int) -> None:
    logins: list[tuple[bytes, bytes]] = []

    def authenticate(_: object, __: object, ___: object, ____: str, login: Any) -> AuthResult:
        logins.append((login.login, login.password))
        return AuthResult(success=login.password == b"right p@ss", handled=False)

    with mail_server(authenticator=authenticate, auth_require_tls=False) as running:
        named = f"smtp://ada:{quote(password)}@127.0.0.1:{running.port}"
        if taken:
            send(named)
        else:
            with pytest.raises(Unavailable, match=r"rejected the login \(535 5.7.8\)"):
                send(named)

    assert (b"ada", password.encode()) in logins
    assert len(running.taken) == taken


def test_a_login_that_the_server_does_not_offer_is_retried(server: MailServer) -> None:
    with pytest.raises(Unavailable, match="SMTP AUTH extension not supported"):
        parse_server(f"smtp://ada:pass@127.0.0.1:{server.port}").check(SENDER)


USER, PASSWORD = "jürgen@example.com", "pässwort €"
LOGIN = f"{quote(USER)}:{quote(PASSWORD)}"


async def by_cram_md5(server: Any, _: list[str]) -> AuthResult:
    challenge = b"<1896.697170952@mail.test>"
    answer = await server.challenge_auth(challenge, True, False)
    digest = hmac.new(PASSWORD.encode(), challenge, "md5").hexdigest()
    return AuthResult(success=answer == f"{USER} {digest}".encode())


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_user_and_password_are_sent_in_utf_8(method: str) -> None:
    logins: list[tuple[bytes, bytes]] = []

    def authenticate(_: object, __: object, ___: object, ____: str, login: Any) -> AuthResult:
        logins.append((login.login, login.password))
        return AuthResult(success=True)

    with mail_server(
        authenticator=authenticate,
        auth_require_tls=False,
        auth_exclude_mechanism=[each for each in ("PLAIN", "LOGIN") if each != method],
    ) as running:
        if method == "CRAM-MD5":
            vars(running)["auth_CRAM__MD5"] = by_cram_md5
        send(f"smtp://{LOGIN}@127.0.0.1:{running.port}")

    assert len(running.taken) == 1
    assert logins == ([] if method == "CRAM-MD5" else [(USER.encode(), PASSWORD.encode())])


def test_the_next_method_is_tried_after_one_that_the_server_refuses() -> None:
    async def refuse(server: Any, _: list[str]) -> AuthResult:
        await server.challenge_auth(b"<challenge>", True, False)
        return AuthResult(success=False, handled=False)

    def authenticate(_: object, __: object, ___: object, method: str, ____: object) -> AuthResult:
        return AuthResult(success=method == "LOGIN", handled=False)

    with mail_server(authenticator=authenticate, auth_require_tls=False) as running:
        vars(running)["auth_CRAM__MD5"] = refuse
        send(f"smtp://{LOGIN}@127.0.0.1:{running.port}")

    assert len(running.taken) == 1


@pytest.mark.parametrize("login", ["p%E4ss", "ada:p%E4ss", "%ff:pass"])
def test_a_login_that_is_not_utf_8_is_named(login: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse_server(f"smtp://{login}@mail.example")

    assert caught.value.problems == ["SMTP_CONNECTION_URL: user and password must be percent-encoded as UTF-8"]


def tokens(*values: str) -> Tokens:
    left = list(values)
    return Tokens(lambda now: Token(left.pop(0), now + 3600, 3600))


def xoauth2(accepted: str, seen: list[bytes]) -> Any:
    """A method that accepts one token, and explains why it refuses others before it does."""

    async def log_in(server: Any, words: list[str]) -> AuthResult:
        seen.append(base64.b64decode(words[1]))
        if seen[-1].endswith(f"\x01auth=Bearer {accepted}\x01\x01".encode()):
            return AuthResult(success=True)
        await server.challenge_auth(b'{"status":"401"}', True, False)
        return AuthResult(success=False, handled=False)

    return log_in


def test_a_token_replaces_the_password_and_a_rejected_one_is_replaced() -> None:
    seen: list[bytes] = []
    with mail_server(auth_require_tls=False, authenticator=lambda *_: AuthResult(success=False)) as running:
        vars(running)["auth_XOAUTH2"] = xoauth2("second", seen)
        server = parse_server(f"smtp://{quote(USER)}@127.0.0.1:{running.port}", tokens("first", "second"))
        envelope = Envelope(SENDER, parse_address(ADDRESS))

        with pytest.raises(Unavailable, match=r"rejected the token \(535 5\.7\.8\): is SMTP_OAUTH_SCOPE right"):
            server.send(envelope, message())
        server.send(envelope, message())
        server.check(SENDER)

    assert seen == [f"user={USER}\x01auth=Bearer {token}\x01\x01".encode() for token in ("first", "second", "second")]
    assert len(running.taken) == 1


def test_a_server_that_takes_no_tokens_is_named(server: MailServer) -> None:
    with mail_server(auth_require_tls=False, authenticator=lambda *_: AuthResult(success=True)) as running:
        named = parse_server(f"smtp://ada@127.0.0.1:{running.port}", tokens("first"))
        with pytest.raises(Unavailable, match="XOAUTH2 is not offered by the server"):
            named.check(SENDER)
    with pytest.raises(Unavailable, match="SMTP AUTH extension not supported"):
        parse_server(f"smtp://ada@127.0.0.1:{server.port}", tokens("first")).check(SENDER)


def test_a_token_that_can_not_be_had_is_the_reason(server: MailServer) -> None:
    def fetch(_: float) -> Token:
        raise Unavailable("the token endpoint is down")

    with pytest.raises(Unavailable, match="the token endpoint is down"):
        parse_server(f"smtp://ada@127.0.0.1:{server.port}", Tokens(fetch)).check(SENDER)


@pytest.mark.parametrize("ending", ["silent", "closed"])
def test_a_port_that_expects_tls_is_a_reason_for_a_server_that_says_nothing(
    monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(smtp, "TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(smtp, "IMPLICIT_PORT", listening.getsockname()[1])
        if ending == "closed":
            threading.Thread(target=lambda: listening.accept()[0].close(), daemon=True).start()  # noqa: PLW0108 (later)
        with pytest.raises(
            Unavailable, match="expects TLS from the first byte, so begin SMTP_CONNECTION_URL with smtps"
        ):
            send(f"smtp://127.0.0.1:{listening.getsockname()[1]}")


def test_tls_on_a_port_without_it_is_named(server: MailServer) -> None:
    with pytest.raises(
        Unavailable, match="does not expect TLS from the first byte, so begin SMTP_CONNECTION_URL with sm"
    ):
        send(f"smtps://127.0.0.1:{server.port}")


def test_encryption_that_is_required_and_not_offered_is_retried(server: MailServer) -> None:
    with pytest.raises(Unavailable, match="STARTTLS"):
        send(f"{server.url}?requireTLS=true")

    assert server.taken == []


def test_starttls_is_used_if_offered_and_the_certificate_is_checked(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server accepts emails on encrypted connections only.
    with mail_server(tls_context=tls(certificate), require_starttls=True) as running:
        with pytest.raises(Unavailable, match="certificate is not trusted"):
            send(running.url)
        send(f"{running.url}?tls.rejectUnauthorized=false")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
        send(running.url)
        with pytest.raises(Unavailable, match="530"):
            send(f"{running.url}?ignoreTLS=true")

    assert len(running.taken) == 2


def test_the_check_logs_in_and_sends_nothing(server: MailServer) -> None:
    parse_server(server.url).check(SENDER)

    assert server.taken == []
    with pytest.raises(Unavailable):
        parse_server(f"smtp://127.0.0.1:{free_port()}").check(SENDER)
