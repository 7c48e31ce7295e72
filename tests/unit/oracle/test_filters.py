from decimal import Decimal
from typing import Any

import pytest

from tests.oracle.columns import SCORE_COLUMNS
from tests.oracle.expected import expected, table_of
from tests.oracle.filters import words
from tests.oracle.raw import World
from tests.oracle.values import Refused
from tests.unit.oracle.rows import CUTOFF, EARLY, P, comment, event, observation, score, trace, world

NAN = float("nan")


def ids(of: World, name: str, *filters: dict[str, Any], events: bool = False) -> list[str]:
    table = table_of(of, P, name, CUTOFF, use_events_table=events)
    return sorted(expected(table, {"filter": list(filters), "orderBy": None}).ids)


def where(column: str, kind: str, operator: str, value: Any = "", **key: str) -> dict[str, Any]:
    return {"column": column, "type": kind, "operator": operator, "value": value, **key}


USERS = world(
    traces=[trace("none"), trace("empty", user_id=""), trace("ann", user_id="ann"), trace("Bob", user_id="Bob")]
)


@pytest.mark.parametrize(
    ("operator", "value", "wanted"),
    [
        ("=", "ann", ["ann"]),
        ("=", "", ["empty"]),
        ("contains", "b", ["Bob"]),
        ("contains", "", ["Bob", "ann", "empty"]),
        ("does not contain", "n", ["Bob", "empty", "none"]),
        ("starts with", "B", ["Bob"]),
        ("starts with", "b", []),
        ("ends with", "n", ["ann"]),
    ],
)
def test_text(operator: str, value: str, wanted: list[str]) -> None:
    assert ids(USERS, "traces", where("userId", "string", operator, value)) == wanted


@pytest.mark.parametrize(
    ("operator", "value", "wanted"),
    [
        ("any of", ["ann", "x"], ["ann"]),
        ("none of", ["ann", ""], ["Bob", "none"]),
    ],
)
def test_options(operator: str, value: list[str], wanted: list[str]) -> None:
    assert ids(USERS, "traces", where("User ID", "stringOptions", operator, value)) == wanted


def test_null_is_missing_and_empty_text_is_not() -> None:
    assert ids(USERS, "traces", where("userId", "null", "is null")) == ["none"]
    assert ids(USERS, "traces", where("userId", "null", "is not null")) == ["Bob", "ann", "empty"]


def test_empty_text_is_null_and_a_text_on_events() -> None:
    of = world(events_full=[event("a", "t", user_id="u"), event("b", "t")])

    for table, events in (("events", False), ("observations", True)):
        assert ids(of, table, where("userId", "null", "is null"), events=events) == ["b"]
        assert ids(of, table, where("userId", "string", "=", ""), events=events) == ["b"]
        assert ids(of, table, where("userId", "string", "does not contain", "u"), events=events) == ["b"]


@pytest.mark.parametrize(
    ("operator", "value", "wanted"),
    [
        ("any of", ["x", "z"], ["xy"]),
        ("none of", ["x"], ["no", "y"]),
        ("none of", [], ["no", "xy", "y"]),
        ("all of", ["x", "y"], ["xy"]),
        ("all of", [], ["no", "xy", "y"]),
    ],
)
def test_lists(operator: str, value: list[str], wanted: list[str]) -> None:
    of = world(traces=[trace("no"), trace("y", tags=["y"]), trace("xy", tags=["x", "y"])])

    assert ids(of, "traces", where("tags", "arrayOptions", operator, value)) == wanted


def test_a_list_without_values_is_null() -> None:
    of = world(traces=[trace("no"), trace("y", tags=["y"])])

    assert ids(of, "traces", where("tags", "null", "is null")) == ["no"]


@pytest.mark.parametrize(
    ("operator", "value", "wanted"),
    [
        ("=", 0.1, ["tenth"]),
        (">", 0.1, ["more"]),
        (">=", 0.1, ["more", "tenth"]),
        ("<", 1, ["more", "tenth"]),
    ],
)
def test_decimals_compare_exactly(operator: str, value: float, wanted: list[str]) -> None:
    costs = {"tenth": Decimal("0.1"), "more": Decimal("0.100000000001")}
    spans = [observation(name, "t", cost_details={"total": cost}) for name, cost in costs.items()]
    of = world(observations=[*spans, observation("none", "t")])

    assert ids(of, "observations", where("totalCost", "number", operator, value)) == wanted


def test_integers_beyond_floating_point_compare_exactly() -> None:
    of = world(observations=[observation("a", "t", usage_details={"total": 2**53 + 1})])

    assert ids(of, "observations", where("tokens", "number", "=", 2**53 + 1)) == ["a"]
    assert ids(of, "observations", where("tokens", "number", "=", 2**53)) == []


def test_nan_satisfies_no_comparison() -> None:
    of = world(scores=[score("nan", "n", NAN), score("one", "n", 1.0)])

    assert ids(of, "scores", where("value", "number", "<=", 1)) == ["one"]
    assert ids(of, "scores", where("value", "number", ">", -1)) == ["one"]
    assert ids(of, "scores", where("value", "null", "is not null")) == ["nan", "one"]


def test_instants_compare_beyond_the_precision_of_the_column() -> None:
    of = world(traces=[trace("t", timestamp=EARLY)])

    assert ids(of, "traces", where("timestamp", "datetime", ">=", "2026-03-01T12:00:00.000Z")) == ["t"]
    assert ids(of, "traces", where("timestamp", "datetime", ">=", "2026-03-01T12:00:00.000001Z")) == []
    assert ids(of, "traces", where("timestamp", "datetime", "<", "2026-03-01T13:00:00.1+01:00")) == ["t"]


def test_booleans_and_their_opposite() -> None:
    of = world(scores=[score("n", "n", 1.0), score("b", "b", 1.0, data_type="BOOLEAN")])

    assert ids(of, "scores", where("booleanValue", "boolean", "=", value=True)) == ["b"]
    assert ids(of, "scores", where("booleanValue", "boolean", "<>", value=True)) == ["n"]
    assert ids(of, "scores", where("booleanValue", "boolean", "<>", value=False)) == ["b", "n"]


def test_metadata_by_key() -> None:
    of = world(traces=[trace("no"), trace("k", metadata={"k": "value"}), trace("other", metadata={"K": "value"})])

    assert ids(of, "traces", where("metadata", "stringObject", "starts with", "val", key="k")) == ["k"]
    assert ids(of, "traces", where("metadata", "stringObject", "does not contain", "val", key="k")) == ["no", "other"]


SCORED = world(
    traces=[trace("no"), trace("low"), trace("both")],
    scores=[
        score("1", "n", 0.25, trace_id="low"),
        score("2", "n", 0.25, trace_id="both"),
        score("3", "n", 1.0, trace_id="both", execution_trace_id="x"),
        score("4", "c", trace_id="both", data_type="CATEGORICAL", string_value="good"),
        score("5", "b", 1.0, trace_id="both", data_type="BOOLEAN", string_value="True"),
    ],
)


@pytest.mark.parametrize(
    ("kind", "operator", "key", "value", "wanted"),
    [
        ("numberObject", ">", "n", 0.5, ["both"]),
        ("numberObject", "=", "n", 0.25, ["both", "low"]),
        ("numberObject", "=", "b", 1, ["both"]),
        ("categoryOptions", "any of", "c", ["good", "bad"], ["both"]),
        ("categoryOptions", "any of", "c", [], []),
        ("categoryOptions", "none of", "c", ["good"], ["low", "no"]),
        ("booleanObject", "=", "b", True, ["both"]),
        ("booleanObject", "=", "b", False, []),
        ("booleanObject", "<>", "b", True, ["low", "no"]),
    ],
)
def test_scores(kind: str, operator: str, key: str, value: Any, wanted: list[str]) -> None:
    for column in ("scores", "Scores", SCORE_COLUMNS[kind]):
        assert ids(SCORED, "traces", where(column, kind, operator, value, key=key)) == wanted


def test_categories_as_name_and_value() -> None:
    assert ids(SCORED, "traces", where("score_categories", "stringOptions", "any of", ["c:good"])) == ["both"]


def test_trace_scores_of_events_are_those_without_an_observation() -> None:
    scores = [score("1", "n", 1.0, trace_id="t", observation_id="a"), score("2", "m", 1.0, trace_id="t")]
    of = world(events_full=[event("a", "t"), event("b", "t")], scores=scores)

    assert ids(of, "events", where("scores_avg", "numberObject", "=", 1, key="n")) == ["a"]
    assert ids(of, "events", where("scores_avg", "numberObject", "=", 1, key="m")) == ["a", "b"]
    assert ids(of, "events", where("trace_scores_avg", "numberObject", "=", 1, key="n")) == []
    assert ids(of, "events", where("trace_scores_avg", "numberObject", "=", 1, key="m")) == ["a", "b"]


COMMENTED = world(
    traces=[trace("none"), trace("one"), trace("two")],
    comments=[
        comment("1", "TRACE", "one", "Looks GOOD"),
        comment("2", "TRACE", "two", "good"),
        comment("3", "TRACE", "two", "bad"),
        comment("4", "SESSION", "none", "good"),
    ],
)


@pytest.mark.parametrize(
    ("column", "kind", "operator", "value", "wanted"),
    [
        ("commentCount", "number", "=", 0, ["none"]),
        ("commentCount", "number", "<=", 1, ["none", "one"]),
        ("commentCount", "number", ">", 1, ["two"]),
        ("commentContent", "string", "contains", "good", ["one", "two"]),
        ("commentContent", "string", "does not contain", "GOOD", ["none"]),
        ("commentContent", "string", "does not contain", "bad", ["none", "one"]),
        ("commentContent", "string", "=", "Good", ["two"]),
        ("commentContent", "string", "starts with", "looks", ["one"]),
        ("commentContent", "null", "is null", "", ["none"]),
    ],
)
def test_comments(column: str, kind: str, operator: str, value: Any, wanted: list[str]) -> None:
    assert ids(COMMENTED, "traces", where(column, kind, operator, value)) == wanted


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("root", None, ["r"]),
        ("first", None, ["b", "other"]),
        ("last", None, ["c", "other"]),
        ("nthFromStart", 2, ["r"]),
        ("nthFromEnd", 3, ["b"]),
    ],
)
def test_positions(key: str, value: int | None, wanted: list[str]) -> None:
    later = EARLY.replace(hour=13)
    spans = [
        event("r", "t", start_time=later),
        event("b", "t", parent_span_id="r"),
        event("c", "t", parent_span_id="r", start_time=later.replace(hour=14)),
        event("future", "t", parent_span_id="r", start_time=CUTOFF),
        event("other", "t2", parent_span_id="gone"),
    ]

    found = ids(world(events_full=spans), "events", where("positionInTrace", "positionInTrace", "=", value, key=key))

    assert found == wanted


def test_words_are_runs_of_letters_and_digits_in_any_ascii_case() -> None:
    assert words("Foo-bar_2 Ünï 数据,x") == {"foo", "bar", "2", "Ünï", "数据", "x"}


def test_full_text_needs_all_words() -> None:
    of = world(
        events_full=[
            event("a", "t", input="The quick, brown FOX"),
            event("b", "t", input="quickly, foxes", metadata_names=["k"], metadata_values=["brown fox"]),
        ]
    )

    assert ids(of, "events", where("input", "string", "matches", "fox Quick")) == ["a"]
    assert ids(of, "events", where("metadata", "stringObject", "matches", "fox", key="k")) == ["b"]


def test_a_session_passes_by_the_metadata_of_any_of_its_traces() -> None:
    of = world(
        traces=[trace("a", session_id="s", metadata={"k": "x"}), trace("b", session_id="s", metadata={"k": "y"})]
    )

    assert ids(of, "sessions", where("metadata", "stringObject", "=", "y", key="k")) == ["s"]
    assert ids(of, "sessions", where("metadata", "stringObject", "does not contain", "y", key="k")) == []


def test_all_filters_must_pass() -> None:
    filters = [where("userId", "null", "is not null"), where("id", "string", "contains", "n")]

    assert ids(USERS, "traces", *filters) == ["ann"]


def test_filters_see_the_latest_version_only() -> None:
    of = world(traces=[trace("t", name="old"), trace("t", name="new")])

    assert ids(of, "traces", where("name", "string", "=", "old")) == []


@pytest.mark.parametrize(
    "wrong",
    [
        where("nothing", "string", "=", "x"),
        where("timestamp", "string", "=", "x"),
        where("tags", "string", "contains", "x"),
        where("metadata", "string", "=", "x"),
        where("input", "string", "matches", "x"),
        where("positionInTrace", "positionInTrace", "=", key="root"),
    ],
)
def test_what_is_not_for_a_column_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        ids(USERS, "traces", wrong)
