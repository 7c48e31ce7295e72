"""Fixtures of the notifier: a completion event, a database with its export, and a scripted SMTP server."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP
from sqlalchemy import Engine, insert

from config.events import ExportFinished, Status
from config.tables import batch_exports, langfuse, users, waybill
from notify.address import EmailAddress
from notify.compose import Sender
from notify.notifier import Notifier

NOW = datetime(2026, 10, 1, 14, 5, tzinfo=UTC)
SENDER = Sender("Data exports", EmailAddress("exports", "example.com"))
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
URL = "https://files.example.com/exports/1.csv?X-Amz-Signature=abc&X-Amz-Expires=86400"


def completion(**changes: Any) -> ExportFinished:
    event: dict[str, Any] = {
        "event_id": "event-1",
        "project_id": "project-1",
        "batch_export_id": "export-1",
        "attempt": 1,
        "status": Status.COMPLETED,
        "table_name": "traces",
        "format": "CSV",
        "rows": 47_112,
        "bytes": 12_431_988,
        "sha256": SHA256,
        "truncated": False,
        "started_at": NOW - timedelta(minutes=2),
        "finished_at": NOW,
        "expires_at": NOW + timedelta(hours=24),
        "error": None,
    }
    return ExportFinished(**(event | changes))


def create_tables(engine: Engine) -> None:
    langfuse.create_all(engine, tables=[batch_exports, users])
    waybill.create_all(engine)


def add_user(engine: Engine, **changes: Any) -> None:
    row = {"id": "user-1", "name": "Ada Lovelace", "email": "ada@example.com"} | changes
    with engine.begin() as connection:
        connection.execute(insert(users).values(row))


def add_export(engine: Engine, **changes: Any) -> None:
    row = {
        "id": "export-1",
        "project_id": "project-1",
        "user_id": "user-1",
        "name": "traces of September",
        "status": "COMPLETED",
        "query": {},
        "format": "CSV",
        "url": URL,
        "expires_at": NOW + timedelta(hours=24),
    }
    with engine.begin() as connection:
        connection.execute(insert(batch_exports).values(row | changes))


async def send_due(notifier: Notifier) -> None:
    """Send notices until none is due."""
    await notifier.start_due()
    while notifier._running:
        await notifier.finish()
        await notifier.start_due()


CUT = "cut"


@dataclass
class MailServer:
    """An SMTP server in a thread; every reply can be set, and functions to call before a reply."""

    port: int = 0
    mail: str = "250 OK"
    rcpt: str = "250 OK"
    data: str = "250 OK"
    quit: str = "221 Bye"
    before_recipient: Callable[[], None] | None = None
    before_answer: Callable[[Any], None] | None = None
    answer_data: Callable[[], Awaitable[None]] | None = None
    taken: list[bytes] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def messages(self) -> list[EmailMessage]:
        return [message_from_bytes(each, policy=policy.default) for each in self.taken]

    async def handle_MAIL(self, _: Any, __: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802 (aiosmtpd names it)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self.mail

    async def handle_RCPT(self, _: Any, __: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802 (aiosmtpd names it)
        if self.before_recipient is not None:
            self.before_recipient()
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return self.rcpt

    async def handle_DATA(self, server: Any, _: Any, envelope: Any) -> str:  # noqa: N802 (aiosmtpd names it)
        if self.data.startswith("2"):
            self.taken.append(envelope.content)
            self.recipients.extend(envelope.rcpt_tos)
        if self.before_answer is not None:
            self.before_answer(server.transport)
        if self.answer_data is not None:
            await self.answer_data()
        return self.data

    async def handle_QUIT(self, server: Any, *_: Any) -> str:  # noqa: N802 (aiosmtpd names it)
        if self.quit == CUT:
            server.transport.abort()
        return self.quit


@contextlib.contextmanager
def mail_server(port: int = 0, **options: Any) -> Iterator[MailServer]:
    """Serve on a port, or on a free one for 0, while the block runs; `options` are those of aiosmtpd."""
    handler, loop = MailServer(), asyncio.new_event_loop()
    served = loop.run_until_complete(
        loop.create_server(lambda: SMTP(handler, hostname="mail.test", loop=loop, **options), "127.0.0.1", port)
    )
    handler.port = served.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield handler
    finally:
        asyncio.run_coroutine_threadsafe(_close(served), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _close(served: asyncio.Server) -> None:
    served.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
