"""An SMTP server that stores every email as a file `<n>.eml`, which appears once it is complete."""

import argparse
import asyncio
import os
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from embedded.part import Lifetime, add_lifetime_option, required_packages

with required_packages():
    from aiosmtpd.smtp import SMTP, AuthResult

MAX_BYTES = 32 * 1024 * 1024
ACCEPTED = "250 Message accepted for delivery"


@dataclass
class EmailFolder:
    """The folder of the stored emails, numbered from 1 in the order of arrival."""

    path: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def store(self, content: bytes, sender: str, recipients: list[str]) -> Path:
        """Write one email and return its file, which appears complete.

        The envelope is prepended as `X-Envelope-From` and one `X-Envelope-To` line for each recipient.
        """
        envelope = [f"X-Envelope-From: {sender}", *(f"X-Envelope-To: {recipient}" for recipient in recipients)]
        head = "".join(f"{line}\r\n" for line in envelope).encode()
        with self._lock:
            file = self.path / f"{self._last_number() + 1}.eml"
            unfinished = file.with_suffix(".tmp")
            unfinished.write_bytes(head + content)
            unfinished.rename(file)
        return file

    def _last_number(self) -> int:
        return max((int(file.stem) for file in self.path.glob("*.eml") if file.stem.isdigit()), default=0)


@dataclass(frozen=True)
class SinkHandler:
    """The handler that aiosmtpd calls for every email."""

    folder: EmailFolder

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 aiosmtpd names it
        """Store the email and return the response to the client."""
        # Writing blocks the loop, but an email is a few kilobytes and nothing else runs here.
        self.folder.store(envelope.content, envelope.mail_from, envelope.rcpt_tos)
        return ACCEPTED


def _accept_login(_server: Any, _session: Any, _envelope: Any, _mechanism: str, _login: Any) -> Any:
    return AuthResult(success=True)


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(prog="python -m embedded.mailsink", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the folder for emails; created if missing")
    parser.add_argument("--port", type=int, default=0, help="0, the default, picks a free port")
    add_lifetime_option(parser)
    options = parser.parse_args()
    life = Lifetime(until_stdin_closes=options.until_stdin_closes)
    options.folder.mkdir(parents=True, exist_ok=True)
    # aiosmtpd's controller can't pick a free port.
    loop = asyncio.new_event_loop()
    protocol = partial(
        SMTP,
        SinkHandler(EmailFolder(options.folder)),
        loop=loop,
        authenticator=_accept_login,
        auth_require_tls=False,
        data_size_limit=MAX_BYTES,
        enable_SMTPUTF8=True,
    )
    server = loop.run_until_complete(loop.create_server(protocol, "127.0.0.1", options.port))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    host, port = server.sockets[0].getsockname()[:2]
    life.announce(host=host, port=port, folder=os.fspath(options.folder))
    life.wait()


if __name__ == "__main__":
    main()
