"""Reads how long a signed URL of a store is valid."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Signature:
    """The signature of a URL, by AWS's version 4: when it ends, and whether it may end earlier, with a session."""

    until: datetime
    of_session: bool


def read_signature(url: str) -> Signature | None:
    """Return the signature of a URL, or None if it has none that can be read."""
    query = parse_qs(urlsplit(url).query)
    try:
        begin = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        until = begin + timedelta(seconds=int(query["X-Amz-Expires"][0]))
    except (KeyError, ValueError, OverflowError):
        return None
    return Signature(until, "X-Amz-Security-Token" in query)
