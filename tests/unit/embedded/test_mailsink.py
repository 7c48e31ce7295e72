import smtplib
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from urllib.parse import urlsplit

from embedded.mailsink import EmailFolder
from embedded.stack import Stack


def send(stack: Stack, subject: str, *recipients: str, login: bool = False) -> None:
    address = urlsplit(stack.smtp)
    mail = EmailMessage()
    mail["Subject"] = subject
    mail["To"] = "shown@example.com"
    mail["From"] = "sender@example.com"
    mail.set_content("Grüße\n.a line with a dot\n")
    with smtplib.SMTP(address.hostname or "", address.port or 0, timeout=30) as client:
        if login:
            client.login("user", "pass word")
        client.send_message(mail, from_addr="bounce@example.com", to_addrs=list(recipients))


def stored(stack: Stack, subject: str) -> list[EmailMessage]:
    mails = [message_from_bytes(file.read_bytes(), policy=default) for file in stack.emails.glob("*.eml")]
    return [mail for mail in mails if mail["Subject"] == subject and isinstance(mail, EmailMessage)]


def test_an_email_is_stored_with_its_envelope(embedded: Stack) -> None:
    send(embedded, "with envelope", "one@example.com", "two@example.com")
    (mail,) = stored(embedded, "with envelope")
    assert mail["X-Envelope-From"] == "bounce@example.com"
    assert mail.get_all("X-Envelope-To") == ["one@example.com", "two@example.com"]
    assert mail["To"] == "shown@example.com"
    assert mail.get_content().splitlines() == ["Grüße", ".a line with a dot"]


def test_any_login_is_accepted(embedded: Stack) -> None:
    send(embedded, "logged in", "one@example.com", login=True)
    assert len(stored(embedded, "logged in")) == 1


def test_the_numbers_of_emails_continue_after_a_restart(tmp_path: Path) -> None:
    assert EmailFolder(tmp_path).store(b"first", "a@example.com", []).name == "1.eml"
    assert EmailFolder(tmp_path).store(b"second", "a@example.com", []).name == "2.eml"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.eml", "2.eml"]
