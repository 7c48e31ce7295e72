from ipaddress import ip_network

import pytest

from notify.networks import is_allowed, may_connect

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
NOT_PUBLIC = [
    *("127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.1", "192.88.99.1", "198.18.0.1"),
    *("192.0.2.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "fe80::1"),
    *("fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "2001::1", "2002:7f00:1::1"),
    *("2002:808:808::1", "3fff::1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808", "100::1"),
]


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_address_may_be_used(host: str) -> None:
    assert may_connect(host, ())
    assert not is_allowed(host, ())


@pytest.mark.parametrize("host", NOT_PUBLIC)
def test_an_address_that_is_not_public_may_be_used_only_if_its_network_is_allowed(host: str) -> None:
    assert not may_connect(host, ())
    assert not may_connect(host, [ip_network("10.9.0.0/16"), ip_network("fd00:9::/32")])
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    assert may_connect(host, everything)


def test_an_ipv4_address_in_an_ipv6_address_is_in_the_network_of_the_ipv4_address() -> None:
    allowed = [ip_network("10.1.0.0/16")]

    assert may_connect("::ffff:10.1.2.3", allowed)
    assert not may_connect("::ffff:10.2.2.3", allowed)
