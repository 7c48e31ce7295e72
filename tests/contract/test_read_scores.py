"""Reading `scores`, with columns of their traces and the names of their authors."""

import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from config.tables import users
from tests.support.databases import MAY, Databases, Read, Row

pytestmark = pytest.mark.clickhouse

SPAN: Row = {
    "id": "o",
    "trace_id": "t",
    "project_id": "p",
    "type": "SPAN",
    "name": "n",
    "start_time": MAY,
    "event_ts": MAY,
    "is_deleted": 0,
}


def read(databases: Databases, **query: object) -> Read:
    return databases.read(tableName="scores", **query)  # type: ignore[arg-type] # query is JSON


def test_a_row_has_the_columns_and_values_of_its_score(databases: Databases) -> None:
    databases.traces({"name": "chat", "user_id": "u", "tags": ["a", "b"]})
    databases.scores(
        {
            "id": "s1",
            "session_id": "se",
            "dataset_run_id": "r",
            "observation_id": "o",
            "timestamp": "2026-05-10 12:00:00.123",
            "source": "EVAL",
            "name": "cat",
            "data_type": "CATEGORICAL",
            "value": 2.5,
            "string_value": "good",
            "comment": "hm",
            "metadata": {"k": '{"n": 12345678901234567890}', "t": "text"},
            "environment": "staging",
            "author_user_id": "ann",
        }
    )
    with databases.engine.begin() as connection:
        connection.execute(insert(users).values(id="ann", name="Ann"))
    found = read(databases)
    (row,) = found.rows
    assert list(row) == [column.name for column in found.columns]
    assert json.loads(row.pop("metadata")) == {"k": {"n": 12345678901234567890}, "t": "text"}
    assert row == {
        "id": "s1",
        "traceId": "t",
        "sessionId": "se",
        "datasetRunId": "r",
        "timestamp": datetime(2026, 5, 10, 12, 0, 0, 123000, tzinfo=UTC),
        "source": "EVAL",
        "name": "cat",
        "dataType": "CATEGORICAL",
        "value": 2.5,
        "stringValue": "good",
        "comment": "hm",
        "observationId": "o",
        "traceName": "chat",
        "userId": "u",
        "traceTags": ["a", "b"],
        "environment": "staging",
        "authorUserName": "Ann",
    }
    assert [column.name for column in found.columns] == [
        *("id", "traceId", "sessionId", "datasetRunId", "timestamp", "source", "name", "dataType", "value"),
        *("stringValue", "comment", "metadata", "observationId", "traceName", "userId", "traceTags", "environment"),
        "authorUserName",
    ]


def test_a_score_without_a_trace_has_no_trace_values(databases: Databases) -> None:
    databases.traces({"id": "gone"}, {"id": "deleted", "project_id": "p"})
    databases.traces({"id": "deleted", "is_deleted": 1, "event_ts": "2026-05-11 00:00:00"})
    databases.scores({"trace_id": None}, {"trace_id": "deleted"}, {"trace_id": "unknown"})
    shown = [(row["traceName"], row["userId"], row["traceTags"], row["authorUserName"]) for row in read(databases).rows]
    assert shown == [(None, None, [], None)] * 3


def test_a_score_is_there_once_and_shows_the_latest_version_of_its_trace(databases: Databases) -> None:
    databases.traces({"name": "old"})
    databases.traces({"name": "new", "timestamp": "2026-05-09 00:00:00", "event_ts": "2026-05-11 00:00:00"})
    databases.traces({"name": "of another project", "project_id": "q", "event_ts": "2026-05-12 00:00:00"})
    databases.scores({"id": "s"}, {"id": "s", "project_id": "q"})
    assert [row["traceName"] for row in read(databases).rows] == ["new"]
    assert [row["traceName"] for row in databases.read(tableName="scores", project="q").rows] == ["of another project"]


def test_corrections_are_not_exported_and_numbers_have_no_text(databases: Databases) -> None:
    databases.scores(
        {"id": "n", "string_value": "hidden"},
        {"id": "b", "data_type": "BOOLEAN", "value": 1, "string_value": "True"},
        {"id": "c", "data_type": "CORRECTION", "long_string_value": "never exported"},
    )
    assert {row["id"]: row["stringValue"] for row in read(databases).rows} == {"n": None, "b": "True"}
    truth = {"type": "boolean", "column": "booleanValue", "operator": "=", "value": True}
    assert read(databases, filter=[truth]).ids() == ["b"]


def test_scores_are_filtered_and_sorted_by_columns_of_the_trace(databases: Databases) -> None:
    databases.traces({"id": "a", "name": "z", "tags": ["x"]}, {"id": "b", "name": "y"})
    databases.scores({"id": "1", "trace_id": "a"}, {"id": "2", "trace_id": "b"}, {"id": "3", "trace_id": None})
    assert read(databases, orderBy={"column": "Trace Name", "order": "ASC"}).ids() == ["2", "1", "3"]
    tagged = {"type": "arrayOptions", "column": "trace_tags", "operator": "any of", "value": ["x"]}
    assert read(databases, filter=[tagged]).ids() == ["1"]


@pytest.mark.parametrize(("table", "events"), [("traces", False), ("observations", False), ("observations", True)])
def test_filters_of_categories_find_texts_as_well(databases: Databases, table: str, events: bool) -> None:
    databases.traces({})
    databases.put("observations", SPAN)
    databases.put("events_full", {("span_id" if name == "id" else name): value for name, value in SPAN.items()})
    databases.scores(
        {"observation_id": "o", "data_type": "TEXT", "name": "note", "string_value": "fine"},
        {"observation_id": "o", "data_type": "CORRECTION", "name": "note", "string_value": "never"},
    )
    asked = {"type": "categoryOptions", "column": "score_categories", "operator": "any of", "key": "note"}
    query = {"tableName": table, "useEventsTable": events}
    assert len(databases.ids({**asked, "value": ["fine"]}, **query)) == 1
    assert databases.ids({**asked, "value": ["never"]}, **query) == []


def test_filters_of_categories_find_no_texts_of_sessions(databases: Databases) -> None:
    databases.traces({"session_id": "s"})
    one = {"trace_id": None, "session_id": "s", "name": "note", "string_value": "fine"}
    databases.scores({**one, "data_type": "TEXT"}, {**one, "data_type": "CATEGORICAL", "string_value": "good"})
    asked = {"type": "categoryOptions", "column": "score_categories", "operator": "any of", "key": "note"}
    assert databases.ids({**asked, "value": ["good"]}, tableName="sessions") == ["s"]
    assert databases.ids({**asked, "value": ["fine"]}, tableName="sessions") == []
