"""An email goes to the stored address or to nobody: examples, and random addresses and names."""

import base64
import quopri
import socket
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email import message_from_bytes, policy

import idna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notify.address import NotAnAddress, parse_address
from notify.compose import EmailContent, compose_email
from notify.mailer import Envelope
from notify.smtp_url import parse_server
from tests.support.notices import NOW, SENDER, completion


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (" ada@example.com ", "ada@example.com"),
        ("ada+exports@example.com", "ada+exports@example.com"),
        ("o'brien@example.com", "o'brien@example.com"),
        ("Ada.Lovelace@Example.COM", "Ada.Lovelace@Example.COM"),
        ("a%b!c=d@example.com", "a%b!c=d@example.com"),
        ("ada@mailhost", "ada@mailhost"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@bu\u0308cher.example", "ada@xn--bcher-kva.example"),
        ("ada@straße.example", "ada@xn--strae-oqa.example"),
        ("ada@例え.テスト", "ada@xn--r8jz45g.xn--zckzah"),
        ("zoë@example.com", "zoë@example.com"),
        ("x" * 64 + "@" + ".".join(["y" * 60] * 4), "x" * 64 + "@" + ".".join(["y" * 60] * 4)),
    ],
)
def test_a_valid_address_is_kept(given: str, kept: str) -> None:
    assert str(parse_address(given)) == kept


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("", "it has no @"),
        ("ada", "it has no @"),
        ("a@b@example.com", "more than one @"),
        ("ada@example.com, eve@example.com", "more than one @"),
        ("ada@", "the domain is not valid"),
        ("@example.com", "empty"),
        (".ada@example.com", "a dot that is not allowed"),
        ("a..b@example.com", "a dot that is not allowed"),
        ('"ada lovelace"@example.com', "not allowed"),
        ("a da@example.com", "not allowed"),
        ("ada(comment)@example.com", "not allowed"),
        ("Ada <ada@example.com>", "not allowed"),
        ("ada\u2028@example.com", "an invisible character"),
        ("ada\u202e@example.com", "an invisible character"),
        ("ada\ud800@example.com", "an invisible character"),
        ("ada\x85@example.com", "an invisible character"),
        ("x" * 65 + "@example.com", "longer than 64 bytes"),
        ("ë" * 33 + "@example.com", "longer than 64 bytes"),
        ("=?utf-8?q?eve?=@example.com", "looks like an encoded word"),
        ("ada@=?utf-8?q?evil.com?=", "the domain is not valid"),
        ("ada@example.com\r\nBcc: eve", "the domain is not valid"),
        ("ada@example.com\x00", "the domain is not valid"),
        ("ada@example.com\n", "the domain is not valid"),
        ("ada@exa..mple.com", "the domain is not valid"),
        ("ada@example.com.", "the domain is not valid"),
        ("ada@-example.com", "the domain is not valid"),
        ("ada@exa_mple.com", "the domain is not valid"),
        ("ada@[127.0.0.1]", "the domain is not valid"),
        ("ada@127.0.0.1", "IP address"),
        ("ada@" + "x" * 64 + ".com", "the domain is not valid"),
        ("ada@" + "x" * 400, "longer than 253 characters"),
        ("ada@" + ".".join(["üa" * 12] * 10), "in its ASCII form"),
        ("ada@\u212aernel.org", "only looks like an ASCII one"),
        ("ada@\uff45vil.com", "IDNA 2008"),
        ("ada@evil\u3002com", "IDNA 2008"),
        ("ada@evil\u00ad.com", "IDNA 2008"),
        ("ada@☃.example", "IDNA 2008"),
    ],
)
def test_anything_else_is_refused_with_a_reason_that_does_not_quote_it(address: str, why: str) -> None:
    with pytest.raises(NotAnAddress, match=why) as raised:
        parse_address(address)

    assert "example" not in str(raised.value)


def test_a_hostile_address_is_refused_quickly() -> None:
    for address in ("a" * 10_000_000, "@" * 10_000_000, "a." * 5_000_000 + "@b", "a@" + "ü." * 5_000_000):
        with pytest.raises(NotAnAddress):
            parse_address(address)


PAYLOADS = ("eve@evil.example", "eve@evil.example>", "a\r\nRCPT TO:<eve@evil.example>", "a\r\nBcc: eve@x.example")
WORDS = ("ada", "example", "com", "xn--", "xn--bcher-kva", "127.0.0.1", "straße", "日本", "א", "evil.example")
ASCII_ODD = "@.<>()[]\\,;:\"' \t\r\n\0=?%!|/*-_~+`{}^&$#"
OTHER_ODD = "\xad\u200b\u200d\u202e\u2028\u3002\uff0e\uff61\uff20\u212a\u017f\xdf\u0131\u0130\u01c6\u0300\ud800"


def encode_word(payload: str, charset: str, kind: str) -> str:
    raw = payload.encode()
    text = base64.b64encode(raw) if kind in "bB" else quopri.encodestring(raw, header=True).replace(b"@", b"=40")
    return f"=?{charset}?{kind}?{text.decode()}?="


PIECES = st.one_of(
    st.sampled_from(WORDS),
    st.builds(
        encode_word, st.sampled_from(PAYLOADS), st.sampled_from(["utf-8", "us-ascii", ""]), st.sampled_from("qQbB")
    ),
    st.text(st.sampled_from(ASCII_ODD + OTHER_ODD), max_size=3),
    st.text(max_size=4),
    st.text("ab1-.", max_size=6),
)
TEXTS = st.lists(PIECES, max_size=3).map("".join)
ADDRESSES = st.one_of(
    st.builds("{}@{}".format, TEXTS, TEXTS),
    st.builds("{}@{}".format, st.text("abc.+-=?é", min_size=1, max_size=8), TEXTS),
    st.builds("ada@{}.example".format, st.text(min_size=1, max_size=5)),
    st.builds("{}@{}".format, TEXTS, st.sampled_from(["attacker.example", "bücher.example"])),
    TEXTS,
)


def is_stored_address(sent: str, stored: str) -> bool:
    """Return whether SMTP gets what the database has, except for a domain that is in its ASCII form."""
    local, _, domain = stored.strip(" ").rpartition("@")
    sent_local, _, sent_domain = sent.rpartition("@")
    labels, sent_labels = domain.split("."), sent_domain.split(".")
    return (
        sent_local == local
        and len(labels) == len(sent_labels)
        and all(_is_label(*pair) for pair in zip(sent_labels, labels, strict=True))
    )


def _is_label(sent: str, stored: str) -> bool:
    if stored.isascii():
        return sent == stored
    return sent.startswith("xn--") and idna.ulabel(sent) == unicodedata.normalize("NFC", stored.lower())


@settings(max_examples=50 * settings().max_examples, suppress_health_check=list(HealthCheck))
@given(ADDRESSES)
def test_a_random_address_is_kept_or_refused(address: str) -> None:
    with suppress(NotAnAddress):
        assert is_stored_address(str(parse_address(address)), address)


@settings(max_examples=10 * settings().max_examples, suppress_health_check=list(HealthCheck))
@given(ADDRESSES, TEXTS, TEXTS)
def test_random_addresses_and_names_add_no_recipient_and_no_header(address: str, user: str, export: str) -> None:
    commands, data = deliver(address, user, export)
    recipients = [each for each in commands if each.upper().startswith("RCPT")]

    if not data:
        assert recipients == []
        return
    (recipient,) = recipients
    sent = recipient.removeprefix("RCPT TO:<").removesuffix(">")
    assert is_stored_address(sent, address)
    assert commands == ["ehlo [127.0.0.1]", f"MAIL FROM:<{SENDER.address}>{options(sent)}", recipient, "DATA", "quit"]
    head = data.partition(b"\r\n\r\n")[0].decode()
    assert [each.partition(":")[0] for each in head.split("\r\n") if each[0] not in " \t"] == HEADERS
    assert f"\r\nTo: {sent}\r\n" in head.replace("\r\n ", " ")
    assert message_from_bytes(data, policy=policy.default)["Bcc"] is None


HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"]
HEADERS += ["X-Auto-Response-Suppress", "MIME-Version", "Content-Type"]


def options(sent: str) -> str:
    return "" if sent.isascii() else " SMTPUTF8 BODY=8BITMIME"


def deliver(address: str, user: str, export: str) -> tuple[list[str], bytes]:
    """Send one email if the address is one; returns the commands and the message as they were on the wire."""
    with recording_server() as (port, commands, data), suppress(NotAnAddress):
        recipient = parse_address(address)
        content = EmailContent(recipient, user, export, None, "https://app.example.com", NOW + timedelta(hours=1))
        message = compose_email(completion(), content, sender=SENDER, now=NOW)
        server = parse_server(f"smtp://127.0.0.1:{port}?name=[127.0.0.1]")
        server.send(Envelope(SENDER.address, recipient), message)
    return commands, bytes(data)


@contextmanager
def recording_server() -> Iterator[tuple[int, list[str], bytearray]]:
    """Serve one SMTP conversation that accepts everything, and record it without parsing any address."""
    commands: list[str] = []
    data = bytearray()

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listening.accept()
            with connection, connection.makefile("rwb", buffering=0) as lines:
                lines.write(b"220 hello\r\n")
                while line := lines.readline():
                    commands.append(line.decode().removesuffix("\r\n"))
                    if line.startswith(b"ehlo"):
                        lines.write(b"250-hello\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")
                    elif line.startswith(b"DATA"):
                        lines.write(b"354 go on\r\n")
                        while (line := lines.readline()) != b".\r\n":
                            data.extend(line)
                        lines.write(b"250 accepted\r\n")
                    else:
                        lines.write(b"250 OK\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield listening.getsockname()[1], commands, data
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)
