"""What the operators' API shows and changes, on SQLite and on PostgreSQL."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import KafkaError
from sqlalchemy import Engine, insert, text

from config.events import ExportRequested, Status
from config.labels import Failure
from config.tables import batch_exports, notices
from tests.support.exports import LEASE, NOW, QUERY, after, claimed, job_of, outbox_rows, queue, result_of, row_of
from tests.support.operators import OperatorServer, dead_letter, dead_letters

EXPORT = "/api/v1/exports/project-1/export-1"
BODY: dict[str, Any] = {"projectId": "project-1", "userId": "user-1", "format": "csv", "query": QUERY}


COLOUR = {"type": "string", "column": "colour", "operator": "=", "value": "x"}


@pytest.fixture
def server(engine: Engine) -> Iterator[OperatorServer]:
    with OperatorServer(engine).open() as opened:
        yield opened


def test_an_empty_installation_has_an_empty_overview(server: OperatorServer) -> None:
    shown = server.overview()

    assert shown["problems"] == []
    assert shown["queue"] == shown["running"] == {"total": 0, "exports": []}
    assert (shown["endings"], shown["notices"]) == ([], {"total": 0, "notices": []})
    assert shown["dependencies"] == [{"name": name, "ok": True, "detail": None} for name in ("database", "kafka")]


def test_the_queue_is_listed_oldest_first_with_waiting_times(engine: Engine, server: OperatorServer) -> None:
    for number in (2, 1, 3):
        queue(engine, f"export-{number}", created_at=after(-100 * number), updated_at=after(-10 * number))

    shown = server.overview()["queue"]

    assert shown["total"] == 3
    assert [(each["id"], each["waitingSeconds"]) for each in shown["exports"]] == [
        ("export-3", 30), ("export-2", 20), ("export-1", 10),
    ]  # fmt: skip
    assert shown["exports"][0] == {
        "projectId": "project-1",
        "id": "export-3",
        "name": "My export",
        "table": "traces",
        "format": "CSV",
        "createdAt": "2026-11-21T11:55:00.000Z",
        "waitingSince": "2026-11-21T11:59:30.000Z",
        "waitingSeconds": 30.0,
        "attempts": 0,
        "nextAttemptAt": None,
        "reason": None,
    }


def test_an_export_that_waits_for_its_next_attempt_says_when_and_why(engine: Engine, server: OperatorServer) -> None:
    queue(engine)
    claim = claimed(server.jobs)
    server.jobs.postpone(claim, Failure.UNAVAILABLE, error="ClickHouse is down", until=after(40), now=after(5))

    (shown,) = server.overview()["queue"]["exports"]

    assert (shown["attempts"], shown["nextAttemptAt"], shown["reason"]) == (
        1, "2026-11-21T12:00:40.000Z", "ClickHouse is down",
    )  # fmt: skip


def test_a_running_export_is_listed_with_its_progress(engine: Engine, server: OperatorServer) -> None:
    queue(engine)
    claim = claimed(server.jobs, worker="pod-a")
    server.jobs.extend_lease(claim, rows=5000, bytes_=123, now=after(20), stage="encode")
    server.time = after(30)

    (shown,) = server.overview()["running"]["exports"]

    assert {**shown, "name": None} == {
        "projectId": "project-1",
        "id": "export-1",
        "name": None,
        "table": "traces",
        "format": "CSV",
        "attempt": 1,
        "pod": "pod-a",
        "since": "2026-11-21T12:00:00.000Z",
        "seconds": 30.0,
        "heartbeatAt": "2026-11-21T12:00:20.000Z",
        "live": True,
        "stage": "encode",
        "rows": 5000,
        "rowsPerSecond": 250.0,
        "bytes": 123,
    }


def test_an_export_whose_worker_died_has_no_live_lease(engine: Engine, server: OperatorServer) -> None:
    queue(engine)
    claimed(server.jobs)
    server.time = NOW + LEASE

    assert [each["live"] for each in server.overview()["running"]["exports"]] == [False]


def test_endings_are_listed_latest_first_with_reason_and_size(engine: Engine, server: OperatorServer) -> None:
    ids = ("done", "bad", "broken", "stopped", "old", "again")
    for each in ids:
        queue(engine, each)
    jobs = server.jobs
    jobs.complete(claimed(jobs, export_id="done"), result_of(), url="https://x", expires_at=after(99), now=after(1))
    jobs.reject(claimed(jobs, export_id="bad"), "The column 'x' is unknown.", after(2))
    jobs.give_up(claimed(jobs, export_id="broken"), Failure.BUG, text="for the user", error="KeyError", now=after(3))
    stopped = claimed(jobs, export_id="stopped")
    jobs.cancel(job_of(jobs, "stopped"), after(3))
    jobs.close_cancelled(stopped, after(4))
    jobs.fail(job_of(jobs, "old"), Failure.STALE, text="It is too old.", now=after(5))
    again = claimed(jobs, export_id="again")
    jobs.postpone(again, Failure.UNAVAILABLE, error="down", until=after(60), now=after(6))

    shown = server.overview()["endings"]

    names = ("id", "outcome", "status", "reason", "rows", "bytes")
    assert [tuple(each[name] for name in names) for each in shown] == [
        ("old", "failed", "FAILED", "It is too old.", None, None),
        ("stopped", "cancelled", "CANCELLED", None, 0, 0),
        ("broken", "failed", "FAILED", "KeyError", 0, 0),
        ("bad", "rejected", "FAILED", "The column 'x' is unknown.", 0, 0),
        ("done", "completed", "COMPLETED", None, 3, 100),
    ]  # fmt: skip


def test_the_ending_of_a_deleted_export_is_still_listed(engine: Engine, server: OperatorServer) -> None:
    queue(engine)
    server.jobs.reject(claimed(server.jobs), "why", after(1))
    with engine.begin() as connection:
        connection.execute(batch_exports.delete())

    (shown,) = server.overview()["endings"]

    assert (shown["id"], shown["projectId"], shown["status"]) == ("export-1", "project-1", None)


def test_notices_that_wait_are_listed(engine: Engine, server: OperatorServer) -> None:
    queue(engine)
    server.jobs.reject(claimed(server.jobs), "why", NOW)
    (event,) = outbox_rows(engine)
    row = {"channel": "mail", "export_id": "export-1", "status": "FAILED", "payload": event["payload"], "attempts": 2}
    with engine.begin() as connection:
        for attempt, state in enumerate(("pending", "sent", "sending")):
            due = after(60 * attempt)
            values = row | {"event_id": state, "attempt": attempt, "state": state, "next_attempt_at": due}
            connection.execute(insert(notices).values(**values, created_at=after(-30), error="421 too many"))

    shown = server.overview()["notices"]

    assert (shown["total"], [each["state"] for each in shown["notices"]]) == (2, ["pending", "sending"])
    assert shown["notices"][0] == {
        "projectId": "project-1",
        "id": "export-1",
        "channel": "mail",
        "state": "pending",
        "attempts": 2,
        "waitingSeconds": 30.0,
        "nextAttemptAt": "2026-11-21T12:00:00.000Z",
        "reason": "421 too many",
    }


def test_dead_letters_are_listed(engine: Engine) -> None:
    server = OperatorServer(engine, dead_letters=lambda: dead_letters(dead_letter(7, "not JSON")))
    with server.open():
        shown = server.overview()["deadLetters"]

    assert shown["total"] == 1
    assert (shown["messages"][0]["position"], shown["messages"][0]["reason"]) == ("0:7", "not JSON")


def test_long_texts_are_shortened(engine: Engine, server: OperatorServer) -> None:
    queue(engine, name="n" * 100_000)
    queue(engine, "export-2", query={"tableName": "t" * 10_000})

    first, second = server.overview()["queue"]["exports"]

    assert (len(first["name"]), len(second["table"])) == (200, 100)


@pytest.mark.parametrize("query", ["not JSON", '{"tableName": 7}', "[]", "null", '"x"', "{" * 200])
def test_a_query_that_cannot_be_read_hides_no_other_row(engine: Engine, server: OperatorServer, query: str) -> None:
    queue(engine)
    queue(engine, "export-2")
    if engine.dialect.name == "postgresql" and query in {"not JSON", "{" * 200}:
        pytest.skip("Postgres stores JSON only")
    with engine.begin() as connection:
        connection.execute(text("UPDATE batch_exports SET query = :query WHERE id = 'export-1'"), {"query": query})

    shown = server.overview()["queue"]["exports"]

    assert [(each["id"], each["table"] in {None, "7"}) for each in shown] == [("export-1", True), ("export-2", False)]


def test_values_that_no_column_should_have_hide_no_row(engine: Engine, server: OperatorServer) -> None:
    if engine.dialect.name == "postgresql":
        pytest.skip("Postgres checks the types of values")
    queue(engine)
    claimed(server.jobs)
    with engine.begin() as connection:
        connection.execute(text("UPDATE batch_exports SET name = x'ff00', updated_at = 'then', project_id = x'ff'"))
        connection.execute(text("UPDATE waybill_runs SET rows = 'many', claimed_at = '-', lease_until = 3, stage = 7"))

    (shown,) = server.overview()["running"]["exports"]

    assert (shown["id"], shown["projectId"], shown["rows"], shown["live"]) == ("export-1", None, 0, False)


def test_an_export_is_shown_with_its_attempts(engine: Engine, server: OperatorServer) -> None:
    queue(engine)
    server.jobs.postpone(claimed(server.jobs), Failure.BUG, error="first", until=after(5), now=after(1))
    claimed(server.jobs, after(6), worker="pod-b")

    shown = server.ask(EXPORT).json()

    assert (shown["status"], shown["query"]) == ("PROCESSING", QUERY)
    assert [(each["attempt"], each["outcome"], each["reason"]) for each in shown["attempts"]] == [
        (1, "retry", "first"), (2, None, None),
    ]  # fmt: skip


def test_an_export_of_another_project_is_not_found(engine: Engine, server: OperatorServer) -> None:
    queue(engine)

    assert server.ask("/api/v1/exports/project-2/export-1").status == 404
    assert server.change("/api/v1/exports/project-2/export-1/cancel").status == 404
    assert row_of(engine)["status"] == "QUEUED"


@pytest.mark.parametrize("export", ["%00", "a%00b", "%ff", "x" * 600, "a%2Fb", "..%2F..", "%F0%9F%92%A5", "'%22;--"])
def test_ids_that_no_export_has_are_not_found(server: OperatorServer, export: str) -> None:
    assert server.ask(f"/api/v1/exports/project-1/{export}").status == 404
    assert server.change(f"/api/v1/exports/project-1/{export}/cancel").status == 404


def test_ids_with_special_characters_are_found(engine: Engine, server: OperatorServer) -> None:
    queue(engine, "a/b?c#d%20 é", "p/1")

    assert server.change("/api/v1/exports/p%2F1/a%2Fb%3Fc%23d%2520%20%C3%A9/cancel").status == 200


def test_cancelling_shows_the_new_status_and_needs_no_kafka(engine: Engine, server: OperatorServer) -> None:
    queue(engine)
    server.overview()

    assert server.change(f"{EXPORT}/cancel").json()["status"] == "CANCELLED"

    assert row_of(engine)["status"] == "CANCELLED"
    assert server.overview()["queue"]["total"] == 0
    assert server.publisher.sent == []


def test_an_export_that_has_ended_is_not_cancelled(engine: Engine, server: OperatorServer) -> None:
    queue(engine, status="COMPLETED")

    answer = server.change(f"{EXPORT}/cancel")

    assert (answer.status, answer.headers["Content-Type"]) == (409, "application/problem+json")
    assert answer.json()["detail"] == "Export export-1 is COMPLETED: only PROCESSING or QUEUED can be cancelled."
    assert row_of(engine)["status"] == "COMPLETED"


def test_a_retry_queues_the_export_and_publishes_its_request(engine: Engine, server: OperatorServer) -> None:
    queue(engine)
    server.jobs.reject(claimed(server.jobs), "why", NOW)

    assert server.change(f"{EXPORT}/retry").json()["status"] == "QUEUED"

    (sent,) = server.wait_for_requests(1)
    event = ExportRequested(project_id="project-1", batch_export_id="export-1")
    assert (sent.topic, sent.key, sent.value) == ("export-requests", b"export-1", event.encode())


def test_an_export_is_created_once_for_each_key(engine: Engine, server: OperatorServer) -> None:
    first = server.create(BODY)
    again = server.create(BODY)
    other = server.create(BODY, key="key-2")

    assert (first.status, again.status, other.status) == (201, 200, 201)
    assert first.json() == again.json()
    assert other.json()["id"] != first.json()["id"]
    assert len(server.wait_for_requests(2)) == 2
    row = row_of(engine, first.json()["id"])
    assert (row["project_id"], row["user_id"], row["format"], row["status"], row["query"], row["name"]) == (
        "project-1", "user-1", "CSV", "QUEUED", QUERY, "traces as CSV",
    )  # fmt: skip


def test_a_key_finds_its_export_when_that_has_ended(server: OperatorServer) -> None:
    created = server.create(BODY).json()
    server.jobs.cancel(job_of(server.jobs, created["id"]), NOW)

    again = server.create(BODY)

    assert (again.status, again.json()["id"], again.json()["status"]) == (200, created["id"], "CANCELLED")


def test_the_key_of_one_project_does_not_find_an_export_of_another(server: OperatorServer) -> None:
    created = server.create(BODY).json()

    other = server.create(BODY | {"projectId": "project-2"})

    assert (other.status, other.json()["projectId"]) == (201, "project-2")
    assert other.json()["id"] != created["id"]


@pytest.mark.parametrize(
    "change",
    [{"format": "JSON"}, {"name": "another"}, {"userId": "user-2"}, {"query": QUERY | {"tableName": "scores"}}],
)
def test_a_key_that_was_used_for_another_export_is_refused(server: OperatorServer, change: dict[str, Any]) -> None:
    server.create(BODY)

    answer = server.create(BODY | change)

    assert (answer.status, answer.json()["title"]) == (422, "The Idempotency-Key was used before")


def test_the_same_key_at_the_same_time_creates_one_export(engine: Engine, server: OperatorServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.create(BODY), range(8)))

    assert sorted(each.status for each in answers) == [200] * 7 + [201]
    with engine.connect() as connection:
        assert len(connection.execute(batch_exports.select()).all()) == 1


def test_an_export_is_created_while_kafka_is_down(engine: Engine, server: OperatorServer) -> None:
    server.publisher.answers = [KafkaError(KafkaError._TRANSPORT)]

    answer = server.create(BODY)

    assert answer.status == 201
    assert row_of(engine, answer.json()["id"])["status"] == Status.QUEUED


@pytest.mark.parametrize(
    ("body", "key", "status", "names"),
    [
        (BODY, None, 400, "Idempotency-Key"),
        (BODY, "two words", 400, "Idempotency-Key"),
        (BODY, '""', 400, "Idempotency-Key"),
        (BODY, '"', 400, "Idempotency-Key"),
        (BODY, '"a', 400, "Idempotency-Key"),
        (BODY, "k" * 256, 400, "Idempotency-Key"),
        (b"", "k", 400, "JSON"),
        (b"{", "k", 400, "JSON"),
        (b'{"projectId": NaN}', "k", 400, "JSON"),
        (b"[" * 40_000, "k", 400, "JSON"),
        (b"\xff", "k", 400, "JSON"),
        (b"[]", "k", 422, "#"),
        ({"query": QUERY}, "k", 422, "#/projectId"),
        (BODY | {"projectId": "a\0b"}, "k", 422, "#/projectId"),
        (BODY | {"projectId": "p" * 513}, "k", 422, "#/projectId"),
        (BODY | {"projectId": 7}, "k", 422, "#/projectId"),
        (BODY | {"query": "traces"}, "k", 422, "#/query"),
        (BODY | {"a/b~c": 1}, "k", 422, "#/a~1b~0c"),
        (BODY | {"format": "XLSX"}, "k", 422, "XLSX"),
        (BODY | {"query": {"tableName": "nothing"}}, "k", 422, "nothing"),
        (BODY | {"query": QUERY | {"x": "a\\\0b"}}, "k", 422, "NUL"),
        (BODY | {"query": QUERY | {"x\0": 1}}, "k", 422, "NUL"),
        (BODY | {"query": QUERY | {"x": "\ud800"}}, "k", 422, "surrogate"),
        (BODY | {"query": QUERY | {"\udfff": 1}}, "k", 422, "surrogate"),
        (json.dumps(BODY | {"query": QUERY | {"x": 7}}).replace("7", "1e999").encode(), "k", 422, "finite"),
        (BODY | {"query": QUERY | {"x": json.loads("[" * 150 + "]" * 150)}}, "k", 422, "100 levels"),
        (BODY | {"query": QUERY | {"filter": [COLOUR]}}, "k", 422, "colour"),
        (BODY | {"query": QUERY | {"orderBy": {"column": "tags", "order": "ASC"}}}, "k", 422, "tags"),
        (BODY | {"query": QUERY | {"columns": ["id", "colour"]}}, "k", 422, "no column 'colour'"),
        (BODY | {"query": QUERY | {"columns": ["id", "id"]}}, "k", 422, "'id' is named twice"),
        (BODY | {"query": QUERY | {"columns": []}}, "k", 422, "columns: should not be empty"),
        (b" " * 50_000, "k", 413, "48 KiB"),
    ],
)  # fmt: skip
def test_a_request_that_is_not_valid_creates_nothing_and_says_why(
    engine: Engine, server: OperatorServer, body: Any, key: str | None, status: int, names: str
) -> None:
    answer = server.create(body, key)

    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert names in answer.body.decode()
    with engine.connect() as connection:
        assert connection.execute(batch_exports.select()).all() == []


def test_an_export_of_named_columns_is_created(engine: Engine, server: OperatorServer) -> None:
    created = server.create(BODY | {"query": QUERY | {"columns": ["name", "id", "scores.accuracy"]}})

    assert created.status == 201
    assert row_of(engine, created.json()["id"])["query"]["columns"] == ["name", "id", "scores.accuracy"]


def test_the_key_of_a_created_export_may_be_quoted(server: OperatorServer) -> None:
    assert server.create(BODY, '"key-1"').json()["id"] == server.create(BODY, "key-1").json()["id"]


def test_an_export_that_cannot_be_read_is_neither_shown_nor_changed_and_says_why(
    engine: Engine, server: OperatorServer
) -> None:
    queue(engine)
    deep = "[" * 200 + "]" * 200
    with engine.begin() as connection:
        connection.execute(text("UPDATE batch_exports SET query = :query"), {"query": deep})

    answers = [server.ask(EXPORT), server.change(f"{EXPORT}/cancel")]

    assert [each.status for each in answers] == [409, 409]
    assert "query is nested more than" in answers[0].json()["detail"]


def test_a_query_may_have_the_text_of_an_escape(server: OperatorServer) -> None:
    assert server.create(BODY | {"query": QUERY | {"x": "\\u0000"}}).status == 201
