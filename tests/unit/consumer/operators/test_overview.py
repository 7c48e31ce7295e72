import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, event

from config.errors import Unavailable
from consumer.operators import overview
from consumer.operators.statements import Exports
from runtime.dead_letters import LatestDeadLetters
from tests.support.exports import queue
from tests.support.operators import BEARER, OperatorServer


@pytest.fixture
def release() -> Iterator[threading.Event]:
    released = threading.Event()
    yield released
    released.set()


def test_fifty_viewers_cost_as_many_statements_as_one(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "OVERVIEW_SECONDS", 60.0)
    queue(engine)
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    with OperatorServer(engine).open() as server:
        server.overview()
        one = len(statements)
        with ThreadPoolExecutor(50) as viewers:
            shown = list(viewers.map(lambda _: server.overview(), range(200)))

    assert one > 0
    assert len(statements) == one
    assert all(each["queue"]["total"] == 1 for each in shown)


def test_nothing_is_read_where_nobody_looks(engine: Engine) -> None:
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    with OperatorServer(engine).open() as server:
        assert server.ask("/").status == 200
        assert server.ask("/livez").status == 200

    assert statements == []


def test_a_database_that_fails_is_named_and_the_rest_is_shown(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Engine) -> Exports:
        raise Unavailable("the database failed: connection refused\nand more")

    def check() -> None:
        raise Unavailable("connection refused")

    monkeypatch.setattr(overview, "_read", fail)
    with OperatorServer(engine, checks={"database": check, "kafka": lambda: None}).open() as server:
        shown = server.overview()

    assert shown["problems"] == [{"part": "exports", "detail": "the database failed: connection refused"}]
    assert shown["queue"] is shown["running"] is shown["endings"] is shown["notices"] is None
    assert [(each["name"], each["ok"]) for each in shown["dependencies"]] == [("database", False), ("kafka", True)]
    assert shown["deadLetters"] == {"total": 0, "messages": []}


def test_a_bug_in_a_part_is_logged_and_the_rest_is_shown(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Engine) -> Exports:
        raise LookupError("secret detail")

    monkeypatch.setattr(overview, "_read", fail)
    with OperatorServer(engine).open() as server:
        (problem,) = server.overview()["problems"]

    assert problem == {"part": "exports", "detail": "internal error (LookupError), see the log"}


def test_a_database_that_hangs_delays_neither_the_health_nor_the_rest(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    calls: list[Engine] = []

    def hang(asked: Engine) -> Exports:
        calls.append(asked)
        release.wait(60)
        raise Unavailable("too late")

    monkeypatch.setattr(overview, "_read", hang)
    monkeypatch.setattr(overview, "PATIENCE", 0.2)
    monkeypatch.setattr(overview, "OVERVIEW_SECONDS", 0.0)
    with OperatorServer(engine).open() as server:
        shown: list[Any] = [server.overview() for _ in range(3)]
        assert server.ask("/livez").status == 200
        release.set()

    assert [each["problems"][0]["detail"] for each in shown] == ["the database did not answer within 0.2 s"] * 3
    assert shown[0]["dependencies"] is not None
    assert len(calls) == 1, "a call that hangs must not be repeated"


def test_dead_letters_that_cannot_be_read_hide_nothing_else(engine: Engine) -> None:
    def fail() -> LatestDeadLetters:
        raise Unavailable("export-requests-dlq can't be read: no broker")

    queue(engine)
    with OperatorServer(engine, dead_letters=fail).open() as server:
        shown = server.overview()

    assert shown["deadLetters"] is None
    assert shown["problems"] == [{"part": "deadLetters", "detail": "export-requests-dlq can't be read: no broker"}]
    assert shown["queue"]["total"] == 1


def test_a_change_is_seen_by_the_next_request(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "OVERVIEW_SECONDS", 60.0)
    queue(engine)
    with OperatorServer(engine).open() as server:
        before = server.overview()["queue"]["total"]
        server.change("/api/v1/exports/project-1/export-1/cancel", BEARER)
        after = server.overview()["queue"]["total"]

    assert (before, after) == (1, 0)


def test_loops_that_make_no_progress_are_named(engine: Engine) -> None:
    server = OperatorServer(engine)
    server.health.beat("sweeper", within=-1.0)
    with server.open():
        assert server.overview()["stuck"] == ["sweeper"]
