"""ClickHouse fails while it is read: in its answer, on the line, by its silence, and by going away."""

import functools
from collections.abc import Callable

import pytest

from tests.faults.case import Case, play
from tests.faults.source import LARGE
from tests.faults.system import Scene
from tests.support import selection
from tests.support.barrier import Gate
from tests.support.http_proxy import Act, Answer, Ask
from tests.support.responses import body, cut, cut_at, ends_at, hold, hold_at, refuse, reply, slowly

pytestmark = pytest.mark.faults
CREW = (
    functools.partial(Scene.consumer, WAYBILL_STALL_SECONDS="8"),
    Scene.notifier,
)

STALL = "WAYBILL_STALL_SECONDS is 8"
FORMATS = ("CSV", "JSON", "JSONL", "PARQUET")
END = 8
MEMORY = b"Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED) (version 26.9.2.1)\n"
TIMEOUT = b"Code: 159. DB::Exception: Timeout exceeded: elapsed 5 seconds. (TIMEOUT_EXCEEDED) (version 26.9.2.1)\n"
TAGGED = b"\r\n__exception__\r\nabcdefghijklmnop\r\n" + MEMORY + b"100 abcdefghijklmnop\r\n__exception__\r\n"


def _fails_once(make: Callable[[Scene], Act], times: int = 1) -> Callable[[Scene], None]:
    """Have the answer with the rows go wrong, in a format that chance picks; the next attempt is whole."""

    def do(scene: Scene) -> None:
        scene.servers.rows.add(selection.reads_rows, make(scene), times=times)
        export_id = scene.request(LARGE, scene.random.choice(FORMATS))
        scene.retried(export_id, times)

    return do


def _excepts(file_format: str) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        told = scene.random.choice((MEMORY, TAGGED))
        share = scene.random.uniform(0.01, 1)
        scene.servers.rows.add(selection.reads_rows, ends_at(share, lambda: iter([told])), times=1)
        scene.retried(scene.request(LARGE, file_format))

    return do


def _anywhere(scene: Scene) -> float:
    return scene.random.uniform(0.01, 0.99)


def _between_messages(then: Callable[[], object] | None) -> Act:
    """Pass all but the mark of the stream's end: the border at which Arrow's own reader sees nothing wrong."""

    def change(whole: bytes):  # type: ignore[no-untyped-def] # noqa: ANN202
        yield whole[:-END]
        if then is not None:
            then()

    return body(change)


def _reset() -> None:
    raise ConnectionResetError


def _silent(make: Callable[[Scene, Gate], Act]) -> Callable[[Scene], None]:
    """Have the server fall silent, until the next attempt is on its way."""

    def do(scene: Scene) -> None:
        gate = Gate()
        scene.servers.rows.add(selection.reads_rows, make(scene, gate), times=1)
        export_id = scene.request(LARGE)
        gate.reached()
        scene.retried(export_id)
        gate.drop()

    return do


def _restarts(scene: Scene) -> None:
    """It goes away in mid-query: what is open is cut, then nobody is there, then it is back."""
    gate = Gate()
    scene.servers.rows.add(selection.reads_rows, hold_at(_anywhere(scene), gate), times=1)
    export_id = scene.request(LARGE)
    gate.reached()
    scene.servers.rows.add(selection.anything, cut)
    gate.drop()
    scene.pause(0.5, 2)
    scene.retried(export_id)
    scene.servers.rows.clear()


def _slow_upload(scene: Scene) -> None:
    def slow(ask: Ask) -> Answer:
        scene.pause(2, 4)
        return ask()

    scene.servers.store.add(selection.sends_part(), slow)
    export_id = scene.request(LARGE)
    scene.becomes(export_id, "COMPLETED")
    assert scene.outcomes(export_id) == ["completed"]


def _slow(scene: Scene) -> None:
    scene.servers.rows.add(selection.reads_rows, slowly(scene.random.uniform(500_000, 2_000_000)))
    export_id = scene.request(LARGE)
    scene.becomes(export_id, "COMPLETED")
    assert scene.outcomes(export_id) == ["completed"]


def _busy(scene: Scene) -> None:
    """The client tries once more by itself."""
    scene.servers.rows.add(selection.reads_rows, refuse(503, "Overloaded"), times=1)
    export_id = scene.request(LARGE)
    scene.becomes(export_id, "COMPLETED")


CASES = (
    *(Case(f"exception in the body in mid-stream, {each}", _excepts(each)) for each in FORMATS),
    Case("connection cut inside a message", _fails_once(lambda scene: cut_at(_anywhere(scene)))),
    Case("connection cut between messages", _fails_once(lambda _: _between_messages(_reset))),
    Case("a stream that ends early, inside a message", _fails_once(lambda scene: ends_at(_anywhere(scene)))),
    Case("a stream that ends early, between messages", _fails_once(lambda _: _between_messages(None))),
    Case(
        "a server that stops sending",
        _silent(lambda scene, gate: hold_at(_anywhere(scene), gate)),
        scaled=STALL,
    ),
    Case("a server that never answers", _silent(lambda _, gate: hold(gate)), scaled=STALL),
    Case("memory limit before the first row", _fails_once(lambda _: reply(500, MEMORY), times=2)),
    Case("timeout in mid-query", _fails_once(lambda scene: ends_at(_anywhere(scene), lambda: iter([TIMEOUT])))),
    Case("a proxy in between says 503", _busy),
    Case("restart in mid-query", _restarts),
    Case("slow reading because the upload is slow", _slow_upload, scaled="2 to 4 s a part, stall after 8 s"),
    Case("a slow server", _slow),
)

OFTEN = (
    "exception in the body in mid-stream, CSV",
    "connection cut between messages",
    "a stream that ends early, inside a message",
    "a server that stops sending",
    "restart in mid-query",
)


def test_what_is_promised_holds(stage: Scene, case: Case, number: int) -> None:
    play(case, stage, number)
