"""Keeps an access token, and fetches the next one before it expires."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from config.errors import Unavailable
from runtime.retry import Backoff

logger = logging.getLogger(__name__)

RENEWAL = 0.75
"""A new token is fetched after this part of its lifetime: earlier than librdkafka asks for one, at 0.8."""

RETRIES = Backoff(1, longest=30)


@dataclass(frozen=True)
class Token:
    """An access token; `expires_at` is in seconds since the epoch, `lifetime` in seconds from its issue."""

    value: str = field(repr=False)
    expires_at: float
    lifetime: float


class Tokens:
    """Gives a valid token to any thread; `fetch` gets the time in seconds since the epoch, and raises Unavailable.

    A call of `get` may take as long as `fetch` does: never call it in an event loop.
    """

    def __init__(self, fetch: Callable[[float], Token], now: Callable[[], float] = time.time) -> None:
        self._fetch = fetch
        self._now = now
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._reason = ""

    def get(self) -> Token:
        """Return a token that is valid, renewed in time; raises Unavailable without one.

        If a renewal fails, the old token is returned until it expires. The next renewal is tried after a pause; until
        then, calls without a valid token fail immediately with the same reason.
        """
        with self._lock:
            now = self._now()
            if self._token is not None and _is_fresh(self._token, now):
                return self._token
            if not self._failures or not 0 < self._retry_at - now <= RETRIES.longest:
                self._renew(now)
            if self._token is not None and self._now() < self._token.expires_at:
                return self._token
            raise Unavailable(self._reason)

    def discard(self, rejected: Token) -> None:
        """Forget a token that a server rejects, so that the next call of `get` fetches another one."""
        with self._lock:
            if self._token is rejected:
                self._token = None

    def _renew(self, now: float) -> None:
        try:
            self._token = self._fetch(now)
        except Unavailable as error:
            self._failures += 1
            self._retry_at = self._now() + RETRIES.delay(self._failures)
            if str(error) != self._reason:
                logger.warning("no new access token: %s", error)
            self._reason = str(error)
        else:
            self._failures, self._reason = 0, ""


def _is_fresh(token: Token, now: float) -> bool:
    """Return whether it is too early for a new token; after a clock was set back, it is not."""
    left = token.expires_at - now
    return (1 - RENEWAL) * token.lifetime < left <= token.lifetime + 1
