"""Reading `sessions`: traces that share a session id, with totals of their observations."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import insert

from config.tables import comments, trace_sessions
from tests.support.databases import OBSERVATION, Databases, Read, Row

pytestmark = pytest.mark.clickhouse


def spans(databases: Databases, *rows: Row) -> None:
    databases.put("observations", *({**OBSERVATION, "id": f"o{index}", **row} for index, row in enumerate(rows)))


def read(databases: Databases, **query: object) -> Read:
    return databases.read(tableName="sessions", **query)  # type: ignore[arg-type] # query is JSON


def ids(databases: Databases, *filters: Row) -> list[str]:
    return read(databases, filter=list(filters)).ids()


def mark(
    databases: Databases, session: str, project: str = "p", *, bookmarked: bool = False, public: bool = False
) -> None:
    with databases.engine.begin() as connection:
        connection.execute(
            insert(trace_sessions).values(id=session, project_id=project, bookmarked=bookmarked, public=public)
        )


def test_a_row_has_the_totals_of_its_traces_and_observations(databases: Databases) -> None:
    databases.traces(
        {"id": "t1", "session_id": "s", "user_id": "ben", "tags": ["b", "a"], "timestamp": "2026-05-11 00:00:00"},
        {"id": "t2", "session_id": "s", "user_id": "ann", "tags": ["b", "c"], "timestamp": "2026-05-10 00:00:00.123"},
        {"id": "t3", "session_id": "s", "user_id": "ann"},
        {"id": "elsewhere", "session_id": None},
        {"id": "nowhere", "session_id": ""},
    )
    spans(
        databases,
        {
            "trace_id": "t1",
            "start_time": "2026-05-10 12:00:00.900",
            "end_time": "2026-05-10 12:00:01.000",
            "usage_details": {"input": 3, "input_cached": 4, "output": 5, "total": 12},
            "cost_details": {"input": "0.000000000001", "total": "0.1"},
        },
        {
            "trace_id": "t2",
            "start_time": "2026-05-10 12:00:05",
            "end_time": "2026-05-10 13:00:00.899",
            "usage_details": {"output": 7, "total": 7},
            "cost_details": {"output": "0.2", "total": "0.2"},
        },
        {"trace_id": "elsewhere", "end_time": "2026-05-12 00:00:00", "cost_details": {"total": "9"}},
    )
    found = read(databases)
    assert [column.name for column in found.columns] == [
        *("id", "userIds", "countTraces", "sessionDuration", "inputCost", "outputCost", "totalCost", "totalTokens"),
        *("traceTags", "createdAt", "bookmarked", "public", "totalCount", "comments"),
    ]
    assert found.rows == [
        {
            "id": "s",
            "userIds": ["ann", "ben"],
            "countTraces": 3,
            "sessionDuration": 3600,
            "inputCost": Decimal("0.000000000001"),
            "outputCost": Decimal("0.2"),
            "totalCost": Decimal("0.3"),
            "totalTokens": 19,
            "traceTags": ["a", "b", "c"],
            "createdAt": datetime(2026, 5, 10, 0, 0, 0, 123000, tzinfo=UTC),
            "bookmarked": False,
            "public": False,
            "totalCount": 3,
            "comments": "[]",
        }
    ]


def test_a_session_without_observations_has_no_duration_and_costs_nothing(databases: Databases) -> None:
    databases.traces({"session_id": "s"})
    (row,) = read(databases).rows
    assert (row["sessionDuration"], row["totalCost"], row["totalTokens"]) == (None, 0, 0)
    assert ids(databases, {"type": "null", "column": "sessionDuration", "operator": "is null", "value": ""}) == ["s"]


def test_an_observation_that_has_not_ended_ends_where_it_starts(databases: Databases) -> None:
    databases.traces({"session_id": "s"})
    spans(databases, {}, {"start_time": "2026-05-10 12:00:02.500"})
    assert read(databases).rows[0]["sessionDuration"] == 2


def test_only_latest_versions_belong_to_a_session(databases: Databases) -> None:
    later = {"event_ts": "2026-05-11 00:00:00"}
    databases.traces({"id": "moved", "session_id": "old"}, {"id": "gone", "session_id": "gone"})
    databases.traces(
        {"id": "moved", "session_id": "new", "timestamp": "2026-05-09 00:00:00", **later},
        {"id": "gone", "session_id": "gone", "is_deleted": 1, **later},
    )
    spans(databases, {"trace_id": "moved", "usage_details": {"total": 5}})
    spans(databases, {"trace_id": "moved", "usage_details": {"total": 1}, "type": "GENERATION", **later})
    assert [(row["id"], row["totalTokens"]) for row in read(databases).rows] == [("new", 1)]


def test_a_session_begins_with_its_first_trace(databases: Databases) -> None:
    databases.traces(
        {"id": "t1", "session_id": "before", "timestamp": "2026-05-31 23:59:59.999"},
        {"id": "t2", "session_id": "before", "timestamp": "2026-06-02 00:00:00"},
        {"id": "t3", "session_id": "at", "timestamp": "2026-06-01 00:00:00"},
    )
    assert [(row["id"], row["countTraces"]) for row in read(databases).rows] == [("before", 2)]


def test_sessions_are_ordered_by_their_beginnings(databases: Databases) -> None:
    databases.traces(
        {"id": "t1", "session_id": "b", "timestamp": "2026-05-02 00:00:00"},
        {"id": "t2", "session_id": "a", "timestamp": "2026-05-02 00:00:00"},
        {"id": "t3", "session_id": "c", "timestamp": "2026-05-01 00:00:00"},
    )
    assert read(databases).ids() == ["c", "a", "b"]
    assert read(databases, orderBy={"column": "Created At", "order": "DESC"}).ids() == ["a", "b", "c"]


def test_sessions_are_filtered_and_sorted_by_bookmarks(databases: Databases) -> None:
    databases.traces(*({"id": each, "session_id": each} for each in ("bookmarked", "public", "unknown", "plain")))
    mark(databases, "bookmarked", bookmarked=True)
    mark(databases, "public", public=True)
    mark(databases, "plain")
    mark(databases, "unknown", project="q", bookmarked=True, public=True)
    shown = {row["id"]: (row["bookmarked"], row["public"]) for row in read(databases).rows}
    assert shown == {
        "bookmarked": (True, False),
        "public": (False, True),
        "unknown": (False, False),
        "plain": (False, False),
    }
    asked = {"type": "boolean", "column": "⭐️", "value": True}
    assert ids(databases, {**asked, "operator": "="}) == ["bookmarked"]
    assert ids(databases, {**asked, "operator": "<>"}) == ["plain", "public", "unknown"]
    sorted_by_marks = read(databases, orderBy={"column": "bookmarked", "order": "DESC"})
    assert sorted_by_marks.ids() == ["bookmarked", "plain", "public", "unknown"]


def test_metadata_filters_match_the_traces_of_a_session(databases: Databases) -> None:
    databases.traces(
        {"id": "t1", "session_id": "both", "metadata": {"k": "red"}},
        {"id": "t2", "session_id": "both", "metadata": {"k": "blue"}},
        {"id": "t3", "session_id": "blue", "metadata": {"k": "blue"}},
        {"id": "t4", "session_id": "none", "metadata": {"x": "red"}},
    )
    asked = {"type": "stringObject", "column": "metadata", "key": "k", "value": "red"}
    assert ids(databases, {**asked, "operator": "="}) == ["both"]
    assert ids(databases, {**asked, "operator": "does not contain"}) == ["blue", "none"]


def test_a_session_has_no_rows_of_another_project(databases: Databases) -> None:
    for project, cost in (("p", "1"), ("q", "100")):
        databases.traces({"project_id": project, "session_id": "s", "user_id": project, "tags": [project]})
        spans(databases, {"project_id": project, "cost_details": {"total": cost}})
        databases.scores({"project_id": project, "trace_id": None, "session_id": "s", "name": f"of {project}"})
        with databases.engine.begin() as connection:
            connection.execute(
                insert(comments).values(
                    id=f"c {project}", project_id=project, object_type="SESSION", object_id="s", content=project
                )
            )
    (row,) = read(databases).rows
    assert (row["userIds"], row["traceTags"], row["countTraces"], row["totalCost"]) == (["p"], ["p"], 1, 1)
    assert [each["content"] for each in json.loads(row["comments"])] == ["p"]
    scored = {"type": "numberObject", "column": "scores_avg", "operator": ">=", "value": 0}
    assert ids(databases, {**scored, "key": "of p"}) == ["s"]
    assert ids(databases, {**scored, "key": "of q"}) == []


SINCE = {"type": "datetime", "column": "createdAt", "operator": ">=", "value": "2026-05-09T12:00:00Z"}
UNTIL = {**SINCE, "operator": "<"}
INSIDE = {"type": "stringOptions", "column": "environment", "operator": "any of"}


@pytest.fixture
def two_environments(databases: Databases) -> Databases:
    """A session that began before the window and went on in another environment, and one that ended before."""
    old, new = {"timestamp": "2026-05-08 00:00:00"}, {"timestamp": "2026-05-10 00:00:00"}
    databases.traces(
        {"id": "t1", "session_id": "long", "environment": "default", "user_id": "ann", "tags": ["a"], **old},
        {"id": "t2", "session_id": "long", "environment": "production", "user_id": "ben", "tags": ["b"], **new},
        {"id": "t3", "session_id": "ended", "environment": "default", **old},
    )
    spans(
        databases,
        {"trace_id": "t1", "usage_details": {"total": 5}, "cost_details": {"total": "0.1"}},
        {"trace_id": "t2", "usage_details": {"total": 7}, "cost_details": {"total": "0.2"}},
    )
    return databases


def totals(databases: Databases, *filters: Row) -> list[tuple[object, ...]]:
    names = ("id", "countTraces", "userIds", "traceTags", "totalTokens", "totalCost")
    return [tuple(row[name] for name in names) for row in read(databases, filter=list(filters)).rows]


def test_a_lower_bound_on_the_beginning_selects_the_traces_of_sessions(two_environments: Databases) -> None:
    later = ("long", 1, ["ben"], ["b"], 7, Decimal("0.2"))
    assert totals(two_environments, SINCE) == [later]
    (row,) = read(two_environments, filter=[SINCE]).rows
    assert row["createdAt"] == datetime(2026, 5, 10, tzinfo=UTC)
    assert ids(two_environments, UNTIL) == ["ended", "long"]
    assert ids(two_environments, SINCE, UNTIL) == []


def test_a_filter_on_the_environment_selects_the_traces_of_sessions(two_environments: Databases) -> None:
    earlier = ("long", 1, ["ann"], ["a"], 5, Decimal("0.1"))
    later = ("long", 1, ["ben"], ["b"], 7, Decimal("0.2"))
    ended: tuple[object, ...] = ("ended", 1, [], [], 0, 0)
    assert totals(two_environments, {**INSIDE, "value": ["default"]}) == [ended, earlier]
    assert totals(two_environments, {**INSIDE, "value": ["production"]}) == [later]
    assert totals(two_environments, {**INSIDE, "operator": "none of", "value": ["default"]}) == [later]
    assert ids(two_environments, {**INSIDE, "value": ["default", "production"]}) == ["ended", "long"]
    assert totals(two_environments, {**INSIDE, "value": ["default"]}, SINCE) == []


def test_filters_on_metadata_and_totals_see_the_selected_traces_alone(databases: Databases) -> None:
    databases.traces(
        {"id": "t1", "session_id": "s", "environment": "default", "metadata": {"k": "red"}},
        {"id": "t2", "session_id": "s", "environment": "production", "metadata": {"k": "blue"}},
    )
    red = {"type": "stringObject", "column": "metadata", "key": "k", "operator": "=", "value": "red"}
    both = {"type": "number", "column": "countTraces", "operator": "=", "value": 2}
    production = {**INSIDE, "value": ["production"]}
    assert (ids(databases, red), ids(databases, red, production)) == (["s"], [])
    assert (ids(databases, both), ids(databases, both, production)) == (["s"], [])
