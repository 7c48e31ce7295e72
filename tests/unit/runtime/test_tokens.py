import logging
import threading

import pytest

from config.errors import Unavailable
from runtime.tokens import RETRIES, Token, Tokens

LIFETIME = 100.0


class Endpoint:
    """Issues numbered tokens while `reason` is empty, at a time that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.asked = 0
        self.reason = ""

    def fetch(self, now: float) -> Token:
        self.asked += 1
        if self.reason:
            raise Unavailable(self.reason)
        return Token(f"token-{self.asked}", now + LIFETIME, LIFETIME)


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def tokens(endpoint: Endpoint) -> Tokens:
    return Tokens(endpoint.fetch, now=lambda: endpoint.now)


def test_a_token_is_kept_until_three_quarters_of_its_life_are_over(endpoint: Endpoint, tokens: Tokens) -> None:
    values = []
    for now in (1_000, 1_074, 1_076, 1_150, 1_151.5):
        endpoint.now = now
        values.append(tokens.get().value)

    assert values == ["token-1", "token-1", "token-2", "token-2", "token-3"]


def test_the_old_token_is_used_while_no_new_one_can_be_had(
    endpoint: Endpoint, tokens: Tokens, caplog: pytest.LogCaptureFixture
) -> None:
    tokens.get()
    endpoint.reason = "it is down"

    with caplog.at_level(logging.WARNING):
        for now in (1_080, 1_090, 1_099):
            endpoint.now = now
            assert tokens.get().value == "token-1"
    endpoint.now = 1_101
    with pytest.raises(Unavailable, match="it is down"):
        tokens.get()

    assert caplog.messages == ["no new access token: it is down"]


def test_a_failed_endpoint_is_asked_again_after_pauses_that_double(endpoint: Endpoint, tokens: Tokens) -> None:
    endpoint.reason = "it is down"
    asked = []
    for second in range(200):
        endpoint.now = 1_000 + second
        with pytest.raises(Unavailable, match="it is down"):
            tokens.get()
        asked.append(endpoint.asked)

    assert [asked[second] for second in (0, 1, 2, 3, 6, 7, 15, 31)] == [1, 2, 2, 3, 3, 4, 5, 6]
    assert asked[199] - asked[139] == 60 / RETRIES.longest

    endpoint.reason = ""
    endpoint.now += RETRIES.longest
    assert tokens.get().expires_at == endpoint.now + LIFETIME


@pytest.mark.parametrize("reason", ["", "it is down"])
def test_a_clock_that_is_set_back_delays_no_new_token(endpoint: Endpoint, tokens: Tokens, reason: str) -> None:
    endpoint.reason = reason
    if reason:
        with pytest.raises(Unavailable):
            tokens.get()
    else:
        tokens.get()

    endpoint.now, endpoint.reason = 100.0, ""

    assert tokens.get().expires_at == 100 + LIFETIME


def test_a_token_that_a_server_rejects_is_replaced(endpoint: Endpoint, tokens: Tokens) -> None:
    rejected = tokens.get()
    tokens.discard(rejected)
    renewed = tokens.get()
    tokens.discard(rejected)

    assert (renewed.value, tokens.get().value, endpoint.asked) == ("token-2", "token-2", 2)


def test_threads_that_need_a_token_at_the_same_time_ask_once() -> None:
    endpoint, barrier, values = Endpoint(), threading.Barrier(8), []
    tokens = Tokens(endpoint.fetch, now=lambda: endpoint.now)

    def use() -> None:
        barrier.wait()
        values.append(tokens.get().value)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert values == ["token-1"] * 8
    assert "token-1" not in repr(tokens.get())
