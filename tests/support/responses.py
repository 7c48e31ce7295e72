"""What a proxy can do with a request: answer it without the server, delay it, or change the response."""

import time
from collections.abc import Callable

from tests.support.barrier import Barrier
from tests.support.http_proxy import PIECE, Body, Cut, Forward, Responder, Response

_XML = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>made up by the test</Message></Error>"


def refuse(status: int, code: str) -> Responder:
    """Answer with an S3 error, without forwarding the request."""
    return reply(status, _XML % code.encode())


def reply(status: int, body: bytes) -> Responder:
    """Answer with this body, without forwarding the request; the headers are also those by which Azure is known."""
    headers = {"Content-Type": "application/xml", "Content-Length": str(len(body)), "x-ms-request-id": "of-the-test"}
    return lambda _: Response(status, headers, iter([body]))


def after_forwarding(respond: Responder) -> Responder:
    """Forward the request, discard the server's response, and answer with another."""

    def forward_first(forward: Forward) -> Response:
        for _ in forward().body:
            pass
        return respond(forward)

    return forward_first


def hold(barrier: Barrier) -> Responder:
    """Forward the request once the barrier is released."""

    def respond(forward: Forward) -> Response:
        barrier.wait()
        return forward()

    return respond


def hold_response(barrier: Barrier) -> Responder:
    """Forward the request, and pass the response on once the barrier is released."""

    def respond(forward: Forward) -> Response:
        response = forward()
        body = b"".join(response.body)
        barrier.wait()
        return Response(response.status, response.headers, iter([body]))

    return respond


def cut(_: Forward) -> Response:
    """Reset the connection without a response."""
    raise Cut


def change_body(change: Callable[[bytes], Body]) -> Responder:
    """Pass the response on with a new body, made from the whole old one; its length is not announced."""

    def respond(forward: Forward) -> Response:
        response = forward()
        headers = {name: value for name, value in response.headers.items() if name.lower() != "content-length"}
        pieces = change(b"".join(response.body))
        return Response(response.status, headers, (piece for piece in pieces if piece))

    return respond


def end_at(share: float, then: Callable[[], Body] = lambda: iter(())) -> Responder:
    """Pass this share of the body, then the output of `then`, then end the response cleanly."""

    def change(whole: bytes) -> Body:
        yield whole[: int(len(whole) * share)]
        yield from then()

    return change_body(change)


def cut_at(share: float) -> Responder:
    """Pass this share of the body, then reset the connection."""

    def reset() -> Body:
        raise Cut
        yield b""  # makes it an iterator

    return end_at(share, reset)


def hold_at(share: float, barrier: Barrier) -> Responder:
    """Pass this share of the body, and the rest once the barrier is released."""

    def change(whole: bytes) -> Body:
        size = int(len(whole) * share)
        yield whole[:size]
        barrier.wait()
        yield whole[size:]

    return change_body(change)


def slowly(rate: float) -> Responder:
    """Pass the body at this rate, in bytes per second."""

    def change(whole: bytes) -> Body:
        for start in range(0, len(whole), PIECE):
            time.sleep(PIECE / rate)
            yield whole[start : start + PIECE]

    return change_body(change)
