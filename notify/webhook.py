"""Writes and signs the message about a finished export for programs, as Standard Webhooks says."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from config.events import ExportFinished
from notify.receiver import Receiver


@dataclass(frozen=True)
class Webhook:
    """The receiver of completion events, and the keys that sign them; `with_link` adds the link to the file.

    With several keys, each message has one signature by each, so that receivers can change their key at any time.
    """

    receiver: Receiver
    keys: tuple[bytes, ...] = field(repr=False)
    with_link: bool = False

    def send(self, event: ExportFinished, link: str | None, now: datetime, fence: Callable[[], None]) -> None:
        """Send the event; `fence` is called right before, and raises to prevent that. Raises what `post` raises."""
        body = write_body(event, {"url": link} if self.with_link else {})
        headers = sign(self.keys, message_id(event.event_id), int(now.timestamp()), body)
        fence()
        self.receiver.post(body, headers)


def message_id(event_id: str) -> str:
    """Return the id of the message about an event: the same for each attempt, and safe in a header."""
    return f"msg_{hashlib.sha256(event_id.encode()).hexdigest()[:32]}"


def write_body(event: ExportFinished, more: dict[str, str | None]) -> bytes:
    """Return the message as JSON: the type, the time of the event, and the event with `more` added to it."""
    data = event.model_dump(mode="json", by_alias=True)
    message = {"type": f"export.{event.status.lower()}", "timestamp": data["finishedAt"], "data": data | more}
    return json.dumps(message, separators=(",", ":")).encode()


def sign(keys: tuple[bytes, ...], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers that identify and sign a message; `timestamp` is the time of the attempt, in seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(key, signed, "sha256") for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }
