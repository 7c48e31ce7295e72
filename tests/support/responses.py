"""What a proxy can do to a request: answer it by itself, hold it, or change the answer."""

import time
from collections.abc import Callable

from tests.support.barrier import Gate
from tests.support.http_proxy import PIECE, Act, Answer, Ask, Body, Cut

_XML = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>made up by the test</Message></Error>"


def refuse(status: int, code: str) -> Act:
    """Answer with an error of S3's, without asking the server."""
    return reply(status, _XML % code.encode())


def reply(status: int, body: bytes) -> Act:
    """Answer with this, without asking the server."""
    headers = {"Content-Type": "application/xml", "Content-Length": str(len(body))}
    return lambda _: Answer(status, headers, iter([body]))


def but_first_do(answer: Act) -> Act:
    """Have the server do it, throw its answer away, and give another."""

    def act(ask: Ask) -> Answer:
        for _ in ask().body:
            pass
        return answer(ask)

    return act


def hold(gate: Gate) -> Act:
    """Keep the request from the server until the gate opens."""

    def act(ask: Ask) -> Answer:
        gate.stand()
        return ask()

    return act


def hold_answer(gate: Gate) -> Act:
    """Have the server do it, and keep its answer back until the gate opens."""

    def act(ask: Ask) -> Answer:
        answer = ask()
        body = b"".join(answer.body)
        gate.stand()
        return Answer(answer.status, answer.headers, iter([body]))

    return act


def cut(_: Ask) -> Answer:
    """Reset the connection without a word."""
    raise Cut


def body(change: Callable[[bytes], Body]) -> Act:
    """Pass the answer with another body, made from all of it, whose length nobody knows beforehand."""

    def act(ask: Ask) -> Answer:
        answer = ask()
        headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
        pieces = change(b"".join(answer.body))
        return Answer(answer.status, headers, (piece for piece in pieces if piece))

    return act


def ends_at(share: float, then: Callable[[], Body] = lambda: iter(())) -> Act:
    """Pass this share of the body, then what `then` gives, then the end of the answer."""

    def change(whole: bytes) -> Body:
        yield whole[: int(len(whole) * share)]
        yield from then()

    return body(change)


def cut_at(share: float) -> Act:
    """Pass this share of the body, then reset the connection."""

    def reset() -> Body:
        raise Cut
        yield b""  # makes it an iterator

    return ends_at(share, reset)


def hold_at(share: float, gate: Gate) -> Act:
    """Pass this share of the body, and the rest once the gate opens."""

    def change(whole: bytes) -> Body:
        size = int(len(whole) * share)
        yield whole[:size]
        gate.stand()
        yield whole[size:]

    return body(change)


def slowly(rate: float) -> Act:
    """Pass the body at so many bytes per second."""

    def change(whole: bytes) -> Body:
        for start in range(0, len(whole), PIECE):
            time.sleep(PIECE / rate)
            yield whole[start : start + PIECE]

    return body(change)
