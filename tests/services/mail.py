"""The mails that were delivered into a folder, whichever server took them."""

from dataclasses import dataclass, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path


@dataclass(frozen=True)
class Mail:
    """A mail as it arrived: the address it was delivered to and the whole message."""

    recipient: str
    message: EmailMessage


@dataclass(frozen=True)
class Mailbox:
    """A folder with one file per mail, in which the server keeps the envelope's recipient as a header."""

    folder: Path
    pattern: str
    recipient_header: str
    ignored: frozenset[Path] = frozenset()

    def mails(self) -> list[Mail]:
        """The mails delivered so far, oldest first."""
        paths = sorted(self._paths(), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [self._read(path) for path in paths]

    def from_now(self) -> "Mailbox":
        """The same mailbox without the mails that are in it now."""
        return replace(self, ignored=self.ignored | self._paths())

    def _paths(self) -> frozenset[Path]:
        return frozenset(self.folder.glob(self.pattern)) - self.ignored

    def _read(self, path: Path) -> Mail:
        message = message_from_bytes(path.read_bytes(), policy=policy.default)
        return Mail(str(message[self.recipient_header]), message)
