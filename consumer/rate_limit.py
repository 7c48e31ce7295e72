"""Limits the rate of requests, per client and overall, in bounded memory (GCRA)."""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

_IPV6_CUSTOMER_BITS = 64
"""The owner of an IPv6 network has any number of addresses in it, so the network is the client."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A rate in requests per second, and `burst` requests that may come at the same time."""

    per_second: float
    burst: int

    def advance(self, arrival: float, now: float) -> float:
        """Return the new theoretical arrival time (GCRA, monotonic seconds) after one more request."""
        return max(arrival, now) + 1 / self.per_second

    def wait(self, arrival: float, now: float) -> float:
        """Return how long the next request has to wait, in seconds; 0 if it may come now."""
        return max(0.0, self.advance(arrival, now) - now - self.burst / self.per_second)


class RateLimit:
    """Limits the requests of each client and those of all clients together.

    It remembers the `clients` that sent a request last.
    """

    def __init__(self, *, each: Rate, overall: Rate, clients: int) -> None:
        self._each = each
        self._overall = overall
        self._clients = clients
        self._arrivals: OrderedDict[str, float] = OrderedDict()
        self._overall_arrival = 0.0

    def wait(self, client: str, now: float) -> float:
        """Return how many seconds the next request has to wait at `now` (monotonic seconds), 0 if it need not."""
        arrival = self._arrivals.get(client, 0.0)
        return max(self._each.wait(arrival, now), self._overall.wait(self._overall_arrival, now))

    def take(self, client: str, now: float) -> float:
        """Count a request at `now` and return 0, or return how many seconds it has to wait, as `wait` does."""
        if wait := self.wait(client, now):
            return wait
        self._arrivals[client] = self._each.advance(self._arrivals.get(client, 0.0), now)
        self._arrivals.move_to_end(client)
        self._overall_arrival = self._overall.advance(self._overall_arrival, now)
        if len(self._arrivals) > self._clients:
            self._arrivals.popitem(last=False)
        return 0.0


def client_of(peer: str | None, forwarded_for: str | None, trusted_proxies: int) -> str:
    """Return the client of a request: its IPv4 address, or its IPv6 network.

    Each trusted proxy appends its caller's address to X-Forwarded-For. Only that many entries at the end are reliable;
    clients can send any others.
    """
    address = peer or ""
    entries = [entry.strip() for entry in (forwarded_for or "").split(",")]
    if 0 < trusted_proxies <= len(entries):
        address = entries[-trusted_proxies]
    try:
        parsed = ip_address(address)
    except ValueError:
        return peer or ""
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> _IPV6_CUSTOMER_BITS << _IPV6_CUSTOMER_BITS))
