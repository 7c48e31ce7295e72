"""An SMTP server that keeps every mail as a file: `<n>.eml`, whole or not there."""

import argparse
import asyncio
import os
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from embedded import extra, lifetime

with extra.needed():
    from aiosmtpd.smtp import SMTP, AuthResult

MAX_BYTES = 32 * 1024 * 1024
ACCEPTED = "250 Message accepted for delivery"


@dataclass
class Folder:
    """The folder that mails are written into, numbered from 1 in the order they came."""

    path: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, content: bytes, sender: str, recipients: list[str]) -> Path:
        """Write one mail and return its file; readers never see half of it.

        The envelope goes on top as `X-Envelope-From` and one `X-Envelope-To` line for each recipient.
        """
        envelope = [f"X-Envelope-From: {sender}", *(f"X-Envelope-To: {recipient}" for recipient in recipients)]
        head = "".join(f"{line}\r\n" for line in envelope).encode()
        with self._lock:
            file = self.path / f"{self._last() + 1}.eml"
            unfinished = file.with_suffix(".tmp")
            unfinished.write_bytes(head + content)
            unfinished.rename(file)
        return file

    def _last(self) -> int:
        return max((int(file.stem) for file in self.path.glob("*.eml") if file.stem.isdigit()), default=0)


@dataclass(frozen=True)
class Keeper:
    """The handler that aiosmtpd calls for every mail."""

    folder: Folder

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 aiosmtpd names it
        """Keep the mail; the answer goes to the client."""
        # A mail is a few kilobytes, and nothing else runs on this loop.
        self.folder.keep(envelope.content, envelope.mail_from, envelope.rcpt_tos)
        return ACCEPTED


def _anyone(_server: Any, _session: Any, _envelope: Any, _mechanism: str, _login: Any) -> Any:
    return AuthResult(success=True)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m embedded.mailsink", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the folder for emails; created if missing")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    lifetime.add_option(parser)
    options = parser.parse_args()
    life = lifetime.Lifetime(until_stdin_closes=options.until_stdin_closes)
    options.folder.mkdir(parents=True, exist_ok=True)
    # Not aiosmtpd's own controller: it can't take a free port.
    loop = asyncio.new_event_loop()
    protocol = partial(
        SMTP,
        Keeper(Folder(options.folder)),
        loop=loop,
        authenticator=_anyone,
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
