"""Reads how long a signed URL of a store is valid."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Signature:
    """The signature of a URL by AWS, Azure or Google: when it ends, and whether it may end earlier, with a session."""

    until: datetime
    of_session: bool


def read_signature(url: str) -> Signature | None:
    """Return the signature of a URL, or None if it has none that can be read."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    try:
        until = _read_end(query)
    except (KeyError, ValueError, OverflowError):
        return None
    return Signature(until, "X-Amz-Security-Token" in query)


def _read_end(query: Mapping[str, str]) -> datetime:
    """Return when a signature ends, from the parameters of Azure, Google or AWS."""
    if "se" in query:
        return datetime.strptime(query["se"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    prefix = "X-Goog" if "X-Goog-Date" in query else "X-Amz"
    begin = datetime.strptime(query[f"{prefix}-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return begin + timedelta(seconds=int(query[f"{prefix}-Expires"]))
