"""Decides who may change exports through the API: callers that send the operators' token in a header."""

import hashlib
import hmac
import time

from aiohttp import web
from pydantic import SecretStr

from consumer.operators.problems import Problem
from consumer.rate_limit import Rate, RateLimit, client_of

SCHEME = "Bearer"
WRONG_TOKENS = Rate(per_second=0.1, burst=10)
"""A client may send this many wrong tokens; while it has to wait, the right one is refused, too."""

WRONG_TOKENS_OF_ALL = Rate(per_second=10, burst=1000)
CLIENTS = 10_000


class Access:
    """Checks the token of requests; without a token in the settings, nobody may change anything.

    Cookies play no part, so that no page of another site can make a browser send a change.
    """

    def __init__(self, token: SecretStr | None) -> None:
        self._expected = None if token is None else _digest(token.get_secret_value())
        self._wrong = RateLimit(each=WRONG_TOKENS, overall=WRONG_TOKENS_OF_ALL, clients=CLIENTS)

    @property
    def possible(self) -> bool:
        """Whether a token is set."""
        return self._expected is not None

    def check(self, request: web.Request) -> None:
        """Return if the request has the token; raises Problem otherwise."""
        if self._expected is None:
            raise Problem(403, "Changes are off", "Set WAYBILL_OPERATOR_TOKEN of the consumer to allow them.")
        client, now = client_of(request.remote, None, 0), time.monotonic()
        if wait := self._wrong.wait(client, now):
            raise Problem(429, "Too many wrong tokens", "Wait before you try again.", retry_after=wait)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != SCHEME.lower():
            raise Problem(401, "A token is required", "Send the header `Authorization: Bearer TOKEN`.")
        # Digests have one length, so that the time of the comparison does not depend on the token.
        if not hmac.compare_digest(_digest(given.strip()), self._expected):
            self._wrong.take(client, now)
            raise Problem(401, "The token is wrong", "Use the value of WAYBILL_OPERATOR_TOKEN of the consumer.")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
