"""A network of its own for a container, whose loopback addresses lead to those of the machine, and which can be cut."""

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_NUMBERS = itertools.count(1)

# Connections to 127.0.0.1 in the namespace go through the pair of interfaces to 127.0.0.1 of the machine.
_CREATE = """\
ip netns add "$1"
ip link add "$1" type veth peer name eth0 netns "$1"
ip address add "$2/30" dev "$1"
ip link set "$1" up
ip -n "$1" address add "$3/30" dev eth0
ip -n "$1" link set eth0 up
ip -n "$1" link set lo up
ip netns exec "$1" sh -ec 'echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet'
ip netns exec "$1" iptables -t nat -A OUTPUT -o lo -d 127.0.0.1 -j DNAT --to-destination "$2"
ip netns exec "$1" iptables -t nat -A POSTROUTING -o eth0 -j SNAT --to-source "$3"
echo 1 >"/proc/sys/net/ipv4/conf/$1/route_localnet"
iptables -t nat -A PREROUTING -i "$1" -j DNAT --to-destination 127.0.0.1
"""

_REMOVE = """\
iptables -t nat -D PREROUTING -i "$1" -j DNAT --to-destination 127.0.0.1
ip link delete "$1"
ip netns delete "$1"
"""


@dataclass(frozen=True)
class Network:
    """A network namespace; `address` is the container's in it."""

    name: str
    address: str

    @property
    def option(self) -> str:
        """The option that puts a container into it."""
        return f"--network=ns:/run/netns/{self.name}"

    def cut(self) -> None:
        """Lose all packets, in both directions."""
        _run('ip link set "$1" down', self.name)

    def restore(self) -> None:
        """Let packets pass again."""
        _run('ip link set "$1" up', self.name)


@contextlib.contextmanager
def create_network() -> Iterator[Network]:
    """Create a network while the block runs."""
    number, owner = next(_NUMBERS), os.getpid() % 256
    name, addresses = (
        f"wb{os.getpid()}-{number}"[-15:],
        [f"10.213.{owner}.{4 * (number % 60) + host}" for host in (1, 2)],
    )
    _run(_CREATE, name, *addresses)
    try:
        yield Network(name, addresses[1])
    finally:
        _run(_REMOVE, name)


def _run(script: str, *arguments: str) -> None:
    ran = subprocess.run(["sh", "-ec", script, "sh", *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"the network could not be changed: {ran.stderr.strip()}")
