"""Reading `scores`, with what they show of their traces, and the names of those who gave them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from config.tables import users
from tests.services.stacks import Stack
from tests.support.databases import Read, World, world


@pytest.fixture
def empty(stack: Stack) -> Iterator[World]:
    made = world(stack.environment())
    yield made
    made.client.close()
    made.database.dispose()


def read(empty: World, **query: object) -> Read:
    return empty.read(tableName="scores", **query)  # type: ignore[arg-type] # query is JSON


def test_a_row_has_the_columns_and_values_of_its_score(empty: World) -> None:
    empty.traces({"name": "chat", "user_id": "u", "tags": ["a", "b"]})
    empty.scores(
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
    with empty.database.begin() as connection:
        connection.execute(insert(users).values(id="ann", name="Ann"))
    found = read(empty)
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


def test_a_score_without_a_trace_shows_nothing_of_one(empty: World) -> None:
    empty.traces({"id": "gone"}, {"id": "deleted", "project_id": "p"})
    empty.traces({"id": "deleted", "is_deleted": 1, "event_ts": "2026-05-11 00:00:00"})
    empty.scores({"trace_id": None}, {"trace_id": "deleted"}, {"trace_id": "unknown"})
    shown = [(row["traceName"], row["userId"], row["traceTags"], row["authorUserName"]) for row in read(empty).rows]
    assert shown == [(None, None, [], None)] * 3


def test_a_score_is_there_once_and_shows_the_latest_version_of_its_trace(empty: World) -> None:
    empty.traces({"name": "old"})
    empty.traces({"name": "new", "timestamp": "2026-05-09 00:00:00", "event_ts": "2026-05-11 00:00:00"})
    empty.traces({"name": "of another project", "project_id": "q", "event_ts": "2026-05-12 00:00:00"})
    empty.scores({"id": "s"}, {"id": "s", "project_id": "q"})
    assert [row["traceName"] for row in read(empty).rows] == ["new"]
    assert [row["traceName"] for row in empty.read(tableName="scores", project="q").rows] == ["of another project"]


def test_corrections_are_not_exported_and_numbers_have_no_text(empty: World) -> None:
    empty.scores(
        {"id": "n", "string_value": "hidden"},
        {"id": "b", "data_type": "BOOLEAN", "value": 1, "string_value": "True"},
        {"id": "c", "data_type": "CORRECTION", "long_string_value": "never exported"},
    )
    assert {row["id"]: row["stringValue"] for row in read(empty).rows} == {"n": None, "b": "True"}
    truth = {"type": "boolean", "column": "booleanValue", "operator": "=", "value": True}
    assert read(empty, filter=[truth]).ids() == ["b"]


def test_columns_of_the_trace_are_filtered_and_sorted_by(empty: World) -> None:
    empty.traces({"id": "a", "name": "z", "tags": ["x"]}, {"id": "b", "name": "y"})
    empty.scores({"id": "1", "trace_id": "a"}, {"id": "2", "trace_id": "b"}, {"id": "3", "trace_id": None})
    assert read(empty, orderBy={"column": "Trace Name", "order": "ASC"}).ids() == ["2", "1", "3"]
    tagged = {"type": "arrayOptions", "column": "trace_tags", "operator": "any of", "value": ["x"]}
    assert read(empty, filter=[tagged]).ids() == ["1"]
