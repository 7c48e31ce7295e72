import pytest

from consumer.rate_limit import Rate, RateLimit, client_of

WIDE = Rate(per_second=1_000_000, burst=1_000_000)


def limit(*, each: Rate = WIDE, overall: Rate = WIDE, clients: int = 100) -> RateLimit:
    return RateLimit(each=each, overall=overall, clients=clients)


def test_a_client_may_send_a_burst_and_then_requests_at_its_rate() -> None:
    one = limit(each=Rate(per_second=2, burst=3))

    assert [one.take("a", 100.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert one.take("a", 100.25) == 0.25
    assert one.take("a", 100.5) == 0
    assert one.take("a", 100.5) == 0.5
    assert [one.take("a", 200.0) for _ in range(4)] == [0, 0, 0, 0.5]


def test_clients_have_separate_limits() -> None:
    one = limit(each=Rate(per_second=1, burst=1))

    assert (one.take("a", 0), one.take("b", 0)) == (0, 0)
    assert (one.take("a", 0) > 0, one.take("b", 0) > 0) == (True, True)


def test_all_clients_together_have_a_limit() -> None:
    one = limit(overall=Rate(per_second=1, burst=2))

    assert [one.take(client, 0) for client in "abc"] == [0, 0, 1]


def test_a_refused_request_does_not_count_for_the_others() -> None:
    one = limit(each=Rate(per_second=1, burst=1), overall=Rate(per_second=1, burst=2))

    assert [one.take("a", 0) > 0 for _ in range(50)] == [False] + [True] * 49
    assert one.take("b", 0) == 0


def test_it_remembers_a_limited_number_of_clients() -> None:
    one = limit(each=Rate(per_second=1, burst=1), clients=3)

    assert [one.take(f"client-{number}", 0) for number in range(1000)] == [0] * 1000
    assert len(one._arrivals) == 3
    assert one.take("client-999", 0) > 0


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "client"),
    [
        ("10.0.0.1", "1.2.3.4", 0, "10.0.0.1"),
        ("10.0.0.1", "9.9.9.9, 1.2.3.4", 1, "1.2.3.4"),
        ("10.0.0.1", "9.9.9.9, 1.2.3.4, 10.0.0.7", 2, "1.2.3.4"),
        ("10.0.0.1", "1.2.3.4", 2, "10.0.0.1"),
        ("10.0.0.1", None, 1, "10.0.0.1"),
        ("10.0.0.1", "not an address", 1, "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", None, 0, "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", None, 0, "2001:db8:1:2::"),
        ("::ffff:1.2.3.4", None, 0, "1.2.3.4"),
        (None, None, 0, ""),
    ],
)
def test_a_client_is_identified_by_its_address_and_not_by_untrusted_headers(
    peer: str | None, forwarded: str | None, proxies: int, client: str
) -> None:
    assert client_of(peer, forwarded, proxies) == client
