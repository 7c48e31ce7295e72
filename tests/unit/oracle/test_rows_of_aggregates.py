from datetime import timedelta
from decimal import Decimal
from typing import Any

from tests.oracle.expected import expected
from tests.unit.oracle.rows import CUTOFF, EARLY, P, comment, observation, rows, score, table, trace, world

MILLISECOND = timedelta(milliseconds=1)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def test_a_session_adds_up_its_traces() -> None:
    of = world(
        traces=[
            trace("a", session_id="s", user_id="u2", tags=["y"], environment="old", timestamp=EARLY - SECOND),
            trace("b", session_id="s", user_id="u1", tags=["x", "y"], environment="new"),
            trace("c", session_id=""),
        ],
        observations=[
            observation("o", "a", start_time=EARLY + 900 * MILLISECOND, usage_details={"total": 3}),
            observation("o2", "b", start_time=EARLY + SECOND, end_time=EARLY + 2800 * MILLISECOND),
        ],
        scores=[score("1", "n", 1.0, session_id="s"), score("2", "n", 9.0, trace_id="a")],
        trace_sessions=[{"id": "s", "project_id": P, "bookmarked": True, "public": False}],
        comments=[comment("c1", "SESSION", "s", "hello"), comment("c2", "TRACE", "s", "no")],
    )

    found = table(of, "sessions")

    (item,) = found.items
    wanted = {
        "id": "s",
        "userIds": ["u1", "u2"],
        "countTraces": 2,
        "sessionDuration": 2,
        "totalTokens": 3,
        "traceTags": ["x", "y"],
        "createdAt": EARLY - SECOND,
        "bookmarked": True,
    }
    assert {name: item.cells[name] for name in wanted} == wanted
    assert (item.facts["environment"], item.facts["commentCount"]) == ("new", 1)
    assert [value.value for value in item.facts["scores_avg"]] == [1.0]


def test_a_score_shows_its_trace_and_author() -> None:
    of = world(
        traces=[trace("t", name="trace")],
        scores=[
            score("1", "n", 1.0, trace_id="t", string_value="one", author_user_id="u"),
            score("2", "b", 1.0, data_type="BOOLEAN", string_value="True", timestamp=CUTOFF),
            score("3", "c", data_type="CORRECTION"),
        ],
        users=[{"id": "u", "name": "Ada", "email": "ada@example.com"}],
    )

    (row,) = rows(of, "scores").rows

    assert [row[name] for name in ("id", "traceName", "authorUserName", "stringValue")] == ["1", "trace", "Ada", None]


def test_a_dataset_item_is_its_valid_version() -> None:
    plain: dict[str, Any] = {
        "project_id": P,
        "dataset_id": "d",
        "status": "ACTIVE",
        "input": {"a": 1},
        "expected_output": None,
        "metadata": {"k": "v", "n": Decimal("1.50"), "x": None},
        "created_at": EARLY,
        "updated_at": EARLY,
        "valid_from": EARLY,
        "valid_to": None,
        "is_deleted": False,
        "source_trace_id": "t",
        "source_observation_id": "o",
    }
    of = world(
        datasets=[{"id": "d", "project_id": P, "name": "Set"}],
        dataset_items=[
            {**plain, "id": "now"},
            {**plain, "id": "now", "valid_from": EARLY - SECOND, "valid_to": EARLY, "status": "ARCHIVED"},
            {**plain, "id": "deleted", "is_deleted": True},
        ],
    )

    found = table(of, "dataset_items")

    (item,) = found.items
    assert [item.cells[name] for name in ("id", "status", "datasetName")] == ["now", "ACTIVE", "Set"]
    assert item.cells["htmlSourcePath"] == "/project/p/traces/t?observation=o"
    assert item.facts["metadata"] == [{"k": "v", "n": "1.50"}]


def test_filters_decide_which_traces_a_legacy_session_is_made_of() -> None:
    of = world(
        traces=[
            trace("old", session_id="s", environment="default", timestamp=EARLY - 46 * HOUR),
            trace("new", session_id="s", environment="production", timestamp=EARLY),
            trace("other", session_id="o", environment="default", timestamp=EARLY - 46 * HOUR),
        ],
        observations=[observation("1", "old", usage_details={"total": 3}), observation("2", "new")],
    )
    since = {"type": "datetime", "column": "Created At", "operator": ">=", "value": (EARLY - HOUR).isoformat()}
    until = {**since, "operator": "<"}
    inside = {"type": "stringOptions", "column": "environment", "operator": "any of", "value": ["default"]}

    def asked(*filters: Any) -> list[tuple[Any, ...]]:
        found = expected(table(of, "sessions"), {"filter": list(filters)}).rows
        names = ("id", "countTraces", "totalTokens", "createdAt")
        return sorted(tuple(row[name] for name in names) for row in found)

    assert asked(since) == [("s", 1, 0, EARLY)]
    assert asked(until) == [("o", 1, 0, EARLY - 46 * HOUR), ("s", 2, 3, EARLY - 46 * HOUR)]
    assert asked(since, until) == []
    assert asked(inside) == [("o", 1, 0, EARLY - 46 * HOUR), ("s", 1, 3, EARLY - 46 * HOUR)]
    assert asked({**inside, "operator": "none of"}) == [("s", 1, 0, EARLY)]
    assert asked(inside, since) == []
