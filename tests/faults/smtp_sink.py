"""An SMTP server that keeps emails as files, and answers each message as a script says."""

import asyncio
import contextlib
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult

from embedded.mailsink import ACCEPTED, EmailFolder
from tests.services.mail import Mailbox

Reply = Callable[[int, Callable[[], None]], str | None]
"""Answers the n-th email, from 1: calls the given function to keep the email; None drops the connection."""


def accept(_: int, keep: Callable[[], None]) -> str:
    """Keep the email, and accept it."""
    keep()
    return ACCEPTED


def at_first(times: int, answer: str | None, *, kept: bool = False) -> Reply:
    """Answer the first emails with this reply, keeping them if `kept`; accept all later ones."""

    def reply(number: int, keep: Callable[[], None]) -> str | None:
        if number > times:
            return accept(number, keep)
        if kept:
            keep()
        return answer

    return reply


class _Handler:
    def __init__(self, folder: EmailFolder, at_recipient: Reply, at_end: Reply) -> None:
        self._folder = folder
        self._at_recipient = at_recipient
        self._at_end = at_end
        self._seen = {"recipients": 0, "emails": 0}

    async def handle_RCPT(  # noqa: N802 (aiosmtpd names it)
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        self._seen["recipients"] += 1
        said = self._at_recipient(self._seen["recipients"], lambda: envelope.rcpt_tos.append(address))
        return "250 OK" if said == ACCEPTED else str(said)

    async def handle_DATA(self, server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 (the same)
        self._seen["emails"] += 1

        def keep() -> None:
            self._folder.store(envelope.content, envelope.mail_from, envelope.rcpt_tos)

        said = self._at_end(self._seen["emails"], keep)
        if said is None:
            server.transport.abort()
        return said or ACCEPTED


@contextlib.contextmanager
def smtp_sink(
    folder: Path, *, at_recipient: Reply = accept, at_end: Reply = accept, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[int, Mailbox]]:
    """Serve on a free port while the block runs; yields the port and the emails. With `tls` it offers STARTTLS."""
    folder.mkdir(exist_ok=True)
    loop = asyncio.new_event_loop()
    protocol = partial(
        SMTP,
        _Handler(EmailFolder(folder), at_recipient, at_end),
        loop=loop,
        authenticator=lambda *_: AuthResult(success=True),
        auth_require_tls=False,
        enable_SMTPUTF8=True,
        tls_context=tls,
    )
    server = loop.run_until_complete(loop.create_server(protocol, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1], Mailbox(folder, "*.eml", "X-Envelope-To")
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_cancel_conversations(loop))
        loop.close()


async def _cancel_conversations(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the conversations that are still running."""
    running = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def self_signed(folder: Path) -> ssl.SSLContext:
    """A certificate that clients do not trust."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mail.test"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
