"""Decides whether an address is on the public internet, so that no webhook reaches a private service."""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from config.settings_channels import Network

_PUBLIC_IPV6 = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
_NOT_PUBLIC = (
    ip_network("168.63.129.16/32"),  # Azure's services for its virtual machines
    ip_network("192.88.99.0/24"),  # relays of 6to4
    ip_network("2002::/16"),  # 6to4, which embeds any IPv4 address
    ip_network("3fff::/20"),  # documentation
)
"""Networks that are not on the public internet although `ipaddress` calls them global."""


def may_connect(host: str, allowed: Collection[Network]) -> bool:
    """Return whether a webhook may connect to an IP address: it is public, or in a network that is allowed.

    An IPv6 address that stands for an IPv4 address is judged as that one, too.
    """
    address = _parse(host)
    return is_allowed(host, allowed) or _is_public(_unwrap(address))


def is_allowed(host: str, allowed: Collection[Network]) -> bool:
    """Return whether an IP address is in one of these networks."""
    address = _parse(host)
    return any(each in network for network in allowed for each in (address, _unwrap(address)))


def _parse(host: str) -> IPv4Address | IPv6Address:
    return ip_address(host.partition("%")[0])


def _unwrap(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, by the socket or by NAT64, or else the address."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _PUBLIC_IPV6:
        return False
    return address.is_global and not address.is_multicast and not any(address in each for each in _NOT_PUBLIC)
