"""Limits how often something may be asked for, per client and overall, in a bounded amount of memory."""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

_IPV6_CUSTOMER_BITS = 64
"""An address of version 6 is one of as many as its owner likes: the network is the client."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """So many a second in the long run, and `burst` at once."""

    per_second: float
    burst: int

    def after(self, full_at: float, now: float) -> float:
        """Give when all is forgotten after one more, of what was to be forgotten at `full_at`; in seconds."""
        return max(full_at, now) + 1 / self.per_second

    def wait(self, full_at: float, now: float) -> float:
        """Give how long one more has to wait, in seconds; 0 when it need not."""
        return max(0.0, self.after(full_at, now) - now - self.burst / self.per_second)


class Limit:
    """Counts requests against two rates: that of each client, and that of all together.

    It remembers `clients` of them, those that asked last.
    """

    def __init__(self, *, each: Rate, overall: Rate, clients: int) -> None:
        self._each = each
        self._overall = overall
        self._clients = clients
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._all_full_at = 0.0

    def take(self, client: str, now: float) -> float:
        """Count a request at `now` (monotonic seconds) and give 0, or give how many seconds it has to wait."""
        mine = self._full_at.get(client, 0.0)
        if wait := max(self._each.wait(mine, now), self._overall.wait(self._all_full_at, now)):
            return wait
        self._full_at[client] = self._each.after(mine, now)
        self._full_at.move_to_end(client)
        self._all_full_at = self._overall.after(self._all_full_at, now)
        if len(self._full_at) > self._clients:
            self._full_at.popitem(last=False)
        return 0.0


def client_of(peer: str | None, forwarded_for: str | None, trusted_proxies: int) -> str:
    """Name the client of a request: its address, or its network for version 6.

    With proxies in front that we trust, each adds to X-Forwarded-For who called it: only as many entries from the
    end as there are proxies are theirs, whatever stands before them is anybody's claim.
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
