"""ClickHouse fails during a read: errors in the response, cut connections, silence, restarts."""

import functools
from collections.abc import Callable

import pytest

from pipeline.types import FORMATS
from tests.faults.case import Case, run_case
from tests.faults.source import LARGE
from tests.faults.system import System
from tests.support import selection
from tests.support.barrier import Barrier
from tests.support.http_proxy import Forward, Responder, Response
from tests.support.responses import change_body, cut, cut_at, end_at, hold, hold_at, refuse, reply, slowly

pytestmark = pytest.mark.faults
DAEMONS = (
    functools.partial(System.consumer, WAYBILL_STALL_SECONDS="8"),
    System.notifier,
)

STALL = "WAYBILL_STALL_SECONDS is 8"
END = 8
MEMORY = b"Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED) (version 26.9.2.1)\n"
BROKEN = b"Code: 210. DB::Exception: I/O error: Broken pipe. (NETWORK_ERROR) (version 26.9.2.1)\n"
TIMEOUT = b"Code: 159. DB::Exception: Timeout exceeded: elapsed 5 seconds. (TIMEOUT_EXCEEDED) (version 26.9.2.1)\n"
TAGGED = b"\r\n__exception__\r\nabcdefghijklmnop\r\n" + BROKEN + b"100 abcdefghijklmnop\r\n__exception__\r\n"


def _fails_once(make: Callable[[System], Responder], times: int = 1) -> Callable[[System], None]:
    """Break the response with the rows, in a random format; the next attempt succeeds."""

    def run(system: System) -> None:
        system.servers.clickhouse_proxy.add(selection.reads_rows, make(system), times=times)
        export_id = system.request(LARGE, system.random.choice(list(FORMATS)))
        system.wait_for_retries(export_id, times)

    return run


def _exception_in_body(file_format: str) -> Callable[[System], None]:
    def run(system: System) -> None:
        error = system.random.choice((BROKEN, TAGGED))
        share = system.random.uniform(0.01, 1)
        system.servers.clickhouse_proxy.add(selection.reads_rows, end_at(share, lambda: iter([error])), times=1)
        system.wait_for_retries(system.request(LARGE, file_format))

    return run


def _anywhere(system: System) -> float:
    return system.random.uniform(0.01, 0.99)


def _between_messages(then: Callable[[], object] | None) -> Responder:
    """Pass all but the end-of-stream marker: Arrow's own reader takes such a stream for complete."""

    def change(whole: bytes):  # type: ignore[no-untyped-def] # noqa: ANN202
        yield whole[:-END]
        if then is not None:
            then()

    return change_body(change)


def _reset() -> None:
    raise ConnectionResetError


def _silent(make: Callable[[System, Barrier], Responder]) -> Callable[[System], None]:
    """Stop the server's responses until the next attempt has begun."""

    def run(system: System) -> None:
        barrier = Barrier()
        system.servers.clickhouse_proxy.add(selection.reads_rows, make(system, barrier), times=1)
        export_id = system.request(LARGE)
        barrier.wait_until_reached()
        system.wait_for_retries(export_id)
        barrier.drop()

    return run


def _restarts(system: System) -> None:
    """It restarts during a query: open connections are cut, new ones fail, then it is available again."""
    barrier = Barrier()
    system.servers.clickhouse_proxy.add(selection.reads_rows, hold_at(_anywhere(system), barrier), times=1)
    export_id = system.request(LARGE)
    barrier.wait_until_reached()
    system.servers.clickhouse_proxy.add(selection.anything, cut)
    barrier.drop()
    system.pause(0.5, 2)
    system.wait_for_retries(export_id)
    system.servers.clickhouse_proxy.clear()


def _slow_upload(system: System) -> None:
    def slow(forward: Forward) -> Response:
        system.pause(2, 4)
        return forward()

    system.servers.store_proxy.add(selection.sends_part(), slow)
    export_id = system.request(LARGE)
    system.wait_for(export_id, "COMPLETED")
    assert system.outcomes(export_id) == ["completed"]


def _slow(system: System) -> None:
    system.servers.clickhouse_proxy.add(selection.reads_rows, slowly(system.random.uniform(500_000, 2_000_000)))
    export_id = system.request(LARGE)
    system.wait_for(export_id, "COMPLETED")
    assert system.outcomes(export_id) == ["completed"]


def _busy(system: System) -> None:
    """The client library retries by itself."""
    system.servers.clickhouse_proxy.add(selection.reads_rows, refuse(503, "Overloaded"), times=1)
    export_id = system.request(LARGE)
    system.wait_for(export_id, "COMPLETED")


CASES = (
    *(Case(f"exception in the body, {each}", _exception_in_body(each)) for each in FORMATS),
    Case("connection cut inside a message", _fails_once(lambda system: cut_at(_anywhere(system)))),
    Case("connection cut between messages", _fails_once(lambda _: _between_messages(_reset))),
    Case("a stream that ends early, inside a message", _fails_once(lambda system: end_at(_anywhere(system)))),
    Case("a stream that ends early, between messages", _fails_once(lambda _: _between_messages(None))),
    Case(
        "a server that stops sending",
        _silent(lambda system, barrier: hold_at(_anywhere(system), barrier)),
        scaled=STALL,
    ),
    Case("a server that never answers", _silent(lambda _, barrier: hold(barrier)), scaled=STALL),
    Case("memory limit before the first row", _fails_once(lambda _: reply(500, MEMORY), times=2)),
    Case("timeout during the query", _fails_once(lambda system: end_at(_anywhere(system), lambda: iter([TIMEOUT])))),
    Case("a proxy answers 503", _busy),
    Case("restart during the query", _restarts),
    Case("slow reading because the upload is slow", _slow_upload, scaled="2 to 4 s a part, stall after 8 s"),
    Case("a slow server", _slow),
)

OFTEN = (
    "exception in the body, CSV",
    "connection cut between messages",
    "a stream that ends early, inside a message",
    "a server that stops sending",
    "restart during the query",
)


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
