"""Reading `events`, and the tables that are built from events."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from config.errors import Rejected
from tests.support.databases import EVENT, Databases, Row

pytestmark = pytest.mark.clickhouse

LATER = "2026-05-11 00:00:00.000000"
BY_ID = {"column": "id", "order": "ASC"}


def put(databases: Databases, *rows: Row) -> None:
    databases.put("events_full", *({**EVENT, **row} for row in rows))


def ids(databases: Databases, *filters: Row, **query: object) -> list[str]:
    return databases.ids(*filters, **{"tableName": "events", "orderBy": BY_ID, **query})


def test_a_row_has_the_columns_and_values_of_its_event(databases: Databases) -> None:
    put(
        databases,
        {
            "parent_span_id": "",
            "name": "answer",
            "type": "GENERATION",
            "start_time": "2026-05-10 12:00:00.000001",
            "end_time": "2026-05-10 12:00:01.999900",
            "completion_start_time": "2026-05-10 12:00:00.500000",
            "version": "v",
            "user_id": "u",
            "session_id": "s",
            "level": "ERROR",
            "status_message": "no",
            "prompt_version": 3,
            "model_id": "m",
            "provided_model_name": "gpt",
            "model_parameters": '{"t": 0.5}',
            "usage_details": {"input": 18446744073709551615, "total": 7},
            "cost_details": {"input": "0.000000000001", "total": "1.5"},
            "input": '{"q": 1}',
            "metadata_names": ["k", "k", "lonely"],
            "metadata_values": ["first", "second"],
            "tags": ["b", "a"],
            "environment": "default",
        },
    )
    (row,) = databases.read(tableName="events").rows
    flags = {"input#json": False, "output#json": False, "modelParameters#json": False}
    assert row == {
        "id": "e",
        "traceId": "t",
        "traceName": "answer",
        "type": "GENERATION",
        "name": "answer",
        "startTime": datetime(2026, 5, 10, 12, 0, 0, 1, tzinfo=UTC),
        "endTime": datetime(2026, 5, 10, 12, 0, 1, 999900, tzinfo=UTC),
        "completionStartTime": datetime(2026, 5, 10, 12, 0, 0, 500000, tzinfo=UTC),
        "environment": "default",
        "version": "v",
        "userId": "u",
        "sessionId": "s",
        "level": "ERROR",
        "statusMessage": "no",
        "promptName": "",
        "promptId": "",
        "promptVersion": 3,
        "modelId": "m",
        "providedModelName": "gpt",
        "modelParameters": '{"t": 0.5}',
        "usageDetails": '{"input":18446744073709551615,"total":7}',
        "costDetails": '{"input":0.000000000001,"total":1.5}',
        "totalCost": Decimal("1.5"),
        "input": '{"q": 1}',
        "output": "",
        "metadata": '{"k":"first","lonely":""}',
        "latencyMs": 1999,
        "timeToFirstTokenMs": 499,
        "tags": ["b", "a"],
        "release": "",
        "parentObservationId": "",
        "comments": "[]",
        **flags,
    }


def test_events_are_ordered_by_start_descending_then_by_id(databases: Databases) -> None:
    put(
        databases,
        {"span_id": "b"},
        {"span_id": "moon", "start_time": "1969-07-20 20:17:40.123456"},
        {"span_id": "a"},
        {"span_id": "late", "start_time": "2026-05-10 12:00:00.000001"},
        {"span_id": "later", "start_time": "2026-05-20 00:00:00"},
    )
    assert databases.ids(tableName="events", orderBy=None) == ["later", "late", "a", "b", "moon"]
    assert ids(databases, {"type": "datetime", "column": "startTime", "operator": "<", "value": "1980-01-01"}) == [
        "moon"
    ]
    assert ids(databases, {"type": "datetime", "column": "startTime", "operator": ">", "value": "2026-05-11"}) == [
        "later"
    ]


def test_a_version_that_starts_at_another_time_or_is_of_another_trace_replaces_the_older_one(
    databases: Databases,
) -> None:
    put(databases, {"name": "new", "start_time": "2026-05-01 00:00:00", "event_ts": LATER}, {"name": "old"})
    put(
        databases, {"span_id": "f", "trace_id": "t2", "name": "new", "event_ts": LATER}, {"span_id": "f", "name": "old"}
    )
    put(databases, {"span_id": "gone"})
    put(databases, {"span_id": "gone", "start_time": "2026-05-02 00:00:00", "event_ts": LATER, "is_deleted": 1})
    assert [row["name"] for row in databases.read(tableName="events").rows] == ["new", "new"]
    assert ids(databases, {"type": "string", "column": "name", "operator": "=", "value": "old"}) == []


def test_full_text_matches_whole_words_in_any_order_and_case(databases: Databases) -> None:
    put(
        databases,
        {"span_id": "a", "input": "The quick_brown FOX, 42"},
        {"span_id": "b", "input": "quickly", "metadata_names": ["k"], "metadata_values": ["über-Fox"]},
        {"span_id": "c", "output": "fox quick"},
    )
    words = {"type": "string", "column": "input", "operator": "matches"}
    assert ids(databases, {**words, "value": "fox quick"}) == ["a"]
    assert ids(databases, {**words, "value": "42 brown-THE"}) == ["a"]
    assert ids(databases, {**words, "value": "quick"}) == ["a"]
    keyed = {"type": "stringObject", "column": "metadata", "key": "k", "operator": "matches"}
    assert ids(databases, {**keyed, "value": "fox über"}) == ["b"]
    assert ids(databases, {**keyed, "value": "ber"}) == []


@pytest.mark.parametrize(("table", "column"), [("events", "name"), ("traces", "name"), ("dataset_items", "id")])
def test_full_text_is_accepted_only_on_long_text_columns(databases: Databases, table: str, column: str) -> None:
    words = {"type": "string", "column": column, "operator": "matches", "value": "x"}
    with pytest.raises(Rejected, match=f"The column '{column}' of {table} takes no operator 'matches'"):
        databases.ids(words, tableName=table)


def test_a_position_counts_all_events_of_the_trace_before_the_cutoff(databases: Databases) -> None:
    spans = {"r": "10:00:00", "a": "10:00:01", "b": "10:00:01", "z": "10:00:02"}
    put(
        databases,
        *({"span_id": key, "start_time": f"2026-05-10 {at}", "parent_span_id": "r"} for key, at in spans.items()),
    )
    put(databases, {"span_id": "r", "start_time": "2026-05-10 10:00:00", "parent_span_id": "", "event_ts": LATER})
    put(databases, {"span_id": "app", "trace_id": "t2", "parent_span_id": "x", "is_app_root": True})
    put(databases, {"span_id": "after", "start_time": "2026-06-01 00:00:00", "parent_span_id": "r"})
    place = {"type": "positionInTrace", "column": "positionInTrace", "operator": "="}
    assert ids(databases, {**place, "key": "root"}) == ["app", "r"]
    assert ids(databases, {**place, "key": "first"}) == ["app", "r"]
    assert ids(databases, {**place, "key": "last"}) == ["app", "z"]
    assert ids(databases, {**place, "key": "nthFromStart", "value": 2}) == ["a"]
    assert ids(databases, {**place, "key": "nthFromEnd", "value": 2}) == ["b"]
    only = {"type": "stringOptions", "column": "id", "operator": "any of", "value": ["b", "z"]}
    assert ids(databases, {**place, "key": "nthFromStart", "value": 2}, only) == []


def test_filters_treat_empty_text_as_missing_and_files_show_it(databases: Databases) -> None:
    put(databases, {"span_id": "a", "user_id": ""}, {"span_id": "b", "user_id": "u"})
    null = {"type": "null", "column": "userId", "operator": "is null", "value": ""}
    assert ids(databases, null) == ["a"]
    assert ids(databases, {**null, "operator": "is not null"}) == ["b"]
    assert [row["userId"] for row in databases.read(tableName="events", orderBy=BY_ID).rows] == ["", "u"]


def test_filters_distinguish_scores_of_the_event_from_scores_of_its_trace(databases: Databases) -> None:
    put(databases, {"span_id": "a"}, {"span_id": "b"})
    databases.scores({"value": 1, "observation_id": "a"}, {"value": 2, "observation_id": None})
    read = databases.read(tableName="events", orderBy=BY_ID)
    assert [row["s"] for row in read.rows] == [[1.0, 2.0], [2.0]]
    asked = {"type": "numberObject", "key": "s", "operator": "=", "value": 1}
    assert ids(databases, {**asked, "column": "scores_avg"}) == ["a"]
    assert ids(databases, {**asked, "column": "trace_scores_avg"}) == []
    assert ids(databases, {**asked, "column": "trace_scores_avg", "value": 2}) == ["a", "b"]


def test_traces_are_built_from_events_only_if_the_project_has_no_trace(databases: Databases) -> None:
    put(
        databases,
        {"span_id": "r", "input": "in", "output": "", "bookmarked": True, "tags": ["b"], "trace_name": ""},
        {"span_id": "c", "parent_span_id": "r", "start_time": "2026-05-10 11:00:00", "input": "no", "tags": ["a", "b"]},
        {"span_id": "u", "parent_span_id": "r", "user_id": "u", "event_ts": LATER, "public": True, "name": "deep"},
        {"span_id": "x", "trace_id": "rootless", "parent_span_id": "lost", "input": "no"},
    )
    derived = databases.read(form="JSONL", orderBy=BY_ID)
    rootless, row = derived.rows
    assert row["timestamp"] == datetime(2026, 5, 10, 11, tzinfo=UTC)
    assert (row["id"], row["name"], row["userId"], row["sessionId"]) == ("t", "n", "u", None)
    assert (row["input"], row["output"], row["tags"], row["bookmarked"], row["public"]) == (
        "in",
        None,
        ["a", "b"],
        True,
        True,
    )
    assert (rootless["id"], rootless["input"], json.loads(rootless["metadata"])) == ("rootless", None, {})
    databases.traces({"id": "kept"})
    assert databases.ids() == ["kept"]
    assert tuple(column.name for column in databases.read().columns) == tuple(column.name for column in derived.columns)


@pytest.mark.parametrize(("table", "own"), [("observations", "old"), ("sessions", "old"), ("scores", "old trace")])
def test_a_query_may_read_from_the_events_table_and_gets_the_same_columns(
    databases: Databases, table: str, own: str
) -> None:
    put(databases, {"span_id": "new", "session_id": "new", "trace_name": "new trace"})
    databases.put("observations", {"id": "old", **{name: value for name, value in EVENT.items() if name != "span_id"}})
    databases.traces({"id": "t", "session_id": "old", "name": "old trace"})
    databases.scores({})
    name = "traceName" if table == "scores" else "id"
    old, new = (databases.read(tableName=table, useEventsTable=flag) for flag in (False, True))
    assert old.columns == new.columns
    assert ([row[name] for row in old.rows], [row[name] for row in new.rows]) == ([own], [own.replace("old", "new")])


@pytest.mark.parametrize("table", ["events", "traces", "observations", "sessions", "scores"])
def test_no_event_of_another_project_is_read(databases: Databases, table: str) -> None:
    for project in ("p", "q"):
        put(databases, {"project_id": project, "session_id": f"of {project}", "trace_name": f"of {project}"})
        databases.scores({"project_id": project, "name": f"of {project}"})
    newer = {"event_ts": LATER, "start_time": "2026-05-12 00:00:00", "trace_name": "of q", "session_id": "of q"}
    put(databases, {"project_id": "q", **newer})
    read = databases.read(tableName=table, useEventsTable=True)
    assert len(read.rows) == 1
    assert "of q" not in f"{read.columns} {read.rows}"


@pytest.mark.parametrize(("table", "events"), [("events", False), ("observations", True)])
def test_every_score_of_the_trace_is_listed_and_found(databases: Databases, table: str, events: bool) -> None:
    put(databases, {"span_id": "a"})
    one = {"name": "accuracy", "observation_id": None}
    databases.scores({**one, "value": 0.5}, {**one, "value": 0.7})
    query: Row = {"tableName": table, "useEventsTable": events}
    asked = {"type": "numberObject", "column": "scores_avg", "key": "accuracy", "operator": ">=", "value": 0.7}
    assert databases.ids(asked, **query) == ["a"]
    assert databases.ids({**asked, "operator": "=", "value": 0.6}, **query) == []
    found = databases.read(form="PARQUET", **query)  # type: ignore[arg-type] # query is JSON
    assert found.rows[0]["accuracy"] == [0.5, 0.7]


@pytest.mark.parametrize(("table", "events"), [("events", False), ("observations", True)])
def test_an_empty_text_is_found_as_a_text_and_as_null(databases: Databases, table: str, events: bool) -> None:
    put(databases, {"span_id": "empty"}, {"span_id": "said", "status_message": "said"})
    query: Row = {"tableName": table, "useEventsTable": events}
    asked: Row = {"type": "string", "column": "statusMessage", "value": ""}
    assert databases.ids({**asked, "operator": "="}, **query) == ["empty"]
    assert databases.ids({**asked, "type": "stringOptions", "operator": "any of", "value": [""]}, **query) == ["empty"]
    assert databases.ids({**asked, "type": "null", "operator": "is null"}, **query) == ["empty"]
    assert databases.ids({**asked, "type": "null", "operator": "is not null"}, **query) == ["said"]
