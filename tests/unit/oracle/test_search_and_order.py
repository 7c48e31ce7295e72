from typing import Any

import pytest

from tests.oracle.expected import expected, table_of
from tests.oracle.raw import World
from tests.oracle.values import Refused
from tests.unit.oracle.rows import CUTOFF, P, event, observation, score, trace, world


def ids(of: World, name: str, *, events: bool = False, **query: Any) -> list[str]:
    table = table_of(of, P, name, CUTOFF, use_events_table=events)
    return expected(table, {"filter": None, "orderBy": None, **query}).ids


TEXTS = world(
    traces=[
        trace("a", name="100% sure", user_id="User_1"),
        trace("b", name="100 percent", input="say Hello", output="r\\u00e9sum\\u00E9"),
        trace("c", name="C:\\temp", session_id="hello"),
    ]
)


@pytest.mark.parametrize(
    ("query", "types", "wanted"),
    [
        ("100%", None, ["a"]),
        ("user_", ["id"], ["a"]),
        ("r_1", None, ["a"]),
        ("e_1", None, []),
        ("\\t", None, ["c"]),
        ("HELLO", ["content"], ["b"]),
        ("hello", ["id"], []),
        ("hello", ["input"], ["b"]),
        ("hello", ["output", "input"], ["b"]),
        ("hello", ["output"], []),
        ("résumé", ["content"], ["b"]),
        ("É", ["content"], []),
        ("", None, ["a", "b", "c"]),
    ],
)
def test_search(query: str, types: list[str] | None, wanted: list[str]) -> None:
    found = ids(TEXTS, "traces", searchQuery=query, searchType=types)

    assert sorted(found) == wanted


def test_observations_from_events_are_searched_like_events() -> None:
    of = world(events_full=[event("o", "t", session_id="abc")])

    assert ids(of, "events", searchQuery="B") == ["o"]
    assert ids(of, "observations", events=True, searchQuery="B") == ["o"]


def test_observations_are_searched_by_the_user_of_their_trace() -> None:
    of = world(traces=[trace("t", user_id="ann")], observations=[observation("o", "t"), observation("p", "gone")])

    assert ids(of, "observations", searchQuery="ANN") == ["o"]


def test_a_search_type_that_a_table_has_no_texts_for_is_refused() -> None:
    with pytest.raises(Refused):
        ids(world(), "scores", searchQuery="x", searchType=["input"])


def order(column: str, direction: str) -> dict[str, Any]:
    return {"orderBy": {"column": column, "order": direction}}


@pytest.mark.parametrize(
    ("direction", "wanted"), [("ASC", ["1", "4", "2", "3", "0", "5"]), ("DESC", ["3", "2", "1", "4", "0", "5"])]
)
def test_values_then_nan_then_missing_and_ties_by_id_in_both_directions(direction: str, wanted: list[str]) -> None:
    values = {"4": 1.0, "1": 1.0, "2": 2.0, "3": float("inf"), "0": float("nan"), "5": float("nan")}
    of = world(scores=[score(name, "n", value) for name, value in values.items()])

    assert ids(of, "scores", **order("value", direction)) == wanted


@pytest.mark.parametrize(
    ("direction", "wanted"), [("ASC", ["B", "a", "é", "🙂", "none"]), ("DESC", ["🙂", "é", "a", "B", "none"])]
)
def test_text_sorts_by_code_point_and_missing_comes_last(direction: str, wanted: list[str]) -> None:
    of = world(traces=[*(trace(text, user_id=text) for text in ("a", "🙂", "é", "B")), trace("none")])

    assert ids(of, "traces", **order("User ID", direction)) == wanted


@pytest.mark.parametrize("column", ["tags", "metadata", "scores", "commentContent", "nothing"])
def test_what_has_no_single_value_can_not_be_sorted_by(column: str) -> None:
    with pytest.raises(Refused):
        ids(TEXTS, "traces", **order(column, "ASC"))
