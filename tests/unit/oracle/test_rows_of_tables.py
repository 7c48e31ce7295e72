from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.oracle.expected import TABLES
from tests.oracle.values import Bag, Json
from tests.unit.oracle.rows import CUTOFF, EARLY, comment, event, observation, rows, score, table, trace, world

MILLISECOND = timedelta(milliseconds=1)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_project_has_no_rows_but_all_columns(name: str) -> None:
    found = rows(world(), name)

    assert found.rows == ()
    assert "id" in found.columns


def test_the_latest_version_wins_whatever_day_the_others_lie_on() -> None:
    old = trace("t", name="old", timestamp=EARLY + timedelta(days=5))
    new = trace("t", name="new", timestamp=EARLY)

    (row,) = rows(world(traces=[new, old]), "traces").rows

    assert (row["name"], row["timestamp"]) == ("new", EARLY)


def test_a_row_whose_last_version_is_deleted_is_gone() -> None:
    versions = [trace("t"), trace("t", is_deleted=1, timestamp=EARLY + timedelta(days=1))]

    assert rows(world(traces=versions), "traces").ids == []


def test_a_row_that_came_back_is_there() -> None:
    assert rows(world(traces=[trace("t", is_deleted=1), trace("t")]), "traces").ids == ["t"]


def test_two_versions_of_one_event_ts_are_refused() -> None:
    with pytest.raises(ValueError, match="two versions"):
        rows(world(traces=[trace("t", event_ts=EARLY, name="a"), trace("t", event_ts=EARLY, name="b")]), "traces")


def test_rows_at_the_cutoff_or_later_are_out() -> None:
    found = [trace("before", timestamp=CUTOFF - MILLISECOND), trace("at", timestamp=CUTOFF)]

    assert rows(world(traces=found), "traces").ids == ["before"]


def test_nothing_of_another_project_is_seen() -> None:
    other = {"project_id": "other"}
    of = world(
        traces=[trace("t"), trace("t", **other, name="theirs"), trace("t2", **other)],
        observations=[observation("o", "t", **other, level="ERROR")],
        scores=[score("s", "theirs", 1.0, trace_id="t", **other)],
        comments=[comment("c", "TRACE", "t", "theirs", **other)],
    )

    found = table(of, "traces")

    assert [item.identity for item in found.items] == ["t"]
    assert found.score_names == ()
    assert found.items[0].cells["comments"] == Json([])
    assert found.items[0].facts["level"] is None


def test_numbers_are_averaged_by_name_and_execution_and_texts_are_listed() -> None:
    scores = [
        score("1", "n", 1.0, trace_id="t"),
        score("2", "n", 2.0, trace_id="t", observation_id="o"),
        score("3", "n", 5.0, trace_id="t", execution_trace_id="x"),
        score("4", "c", trace_id="t", data_type="CATEGORICAL", string_value="good"),
        score("5", "c", trace_id="t", data_type="CATEGORICAL", string_value="good"),
        score("6", "c", trace_id="t", data_type="CATEGORICAL"),
        score("7", "hidden", trace_id="t", data_type="CORRECTION"),
    ]

    (row,) = rows(world(traces=[trace("t")], scores=scores), "traces").rows

    assert row["n"] == Bag((1.5, 5.0))
    assert row["c"] == Bag(("good",))
    assert "hidden" not in row


def test_scores_created_after_the_cutoff_give_neither_name_nor_value() -> None:
    scores = [
        score("1", "n", 1.0, trace_id="t", created_at=CUTOFF),
        score("2", "n", 9.0, trace_id="t", created_at=CUTOFF + MILLISECOND),
        score("3", "late", 9.0, trace_id="t", created_at=CUTOFF + MILLISECOND),
    ]

    found = rows(world(traces=[trace("t")], scores=scores), "traces")

    assert found.rows[0]["n"] == Bag((1.0,))
    assert "late" not in found.columns


def test_a_score_named_like_a_column_gets_a_prefix_until_it_is_free() -> None:
    scores = [score("1", "id", 1.0), score("2", "scores.id", 2.0)]

    found = rows(world(traces=[trace("t")], scores=scores), "traces")

    assert found.columns[-2:] == ("scores.scores.id", "scores.id")
    assert found.rows[0]["id"] == "t"


def test_a_trace_adds_up_its_observations() -> None:
    spans = [
        observation(
            "a",
            "t",
            level="WARNING",
            end_time=EARLY + 2 * SECOND,
            usage_details={"input": 1, "Input_cached": 2},
            cost_details={"total": Decimal("0.1")},
        ),
        observation("b", "t", start_time=EARLY + 3 * SECOND, usage_details={"input": 4, "output": 8, "total": 16}),
    ]

    facts = table(world(traces=[trace("t")], observations=spans), "traces").items[0].facts

    assert {name: facts[name] for name in ("inputTokens", "outputTokens", "totalTokens")} == {
        "inputTokens": 7,
        "outputTokens": 8,
        "totalTokens": 16,
    }
    assert (facts["totalCost"], facts["inputCost"]) == (Decimal("0.1"), 0)
    assert (facts["level"], facts["warningCount"], facts["defaultCount"]) == ("WARNING", 1, 1)
    assert facts["latency"] == 3


def test_an_observation_shows_its_trace_its_own_scores_and_its_models_prices() -> None:
    of = world(
        traces=[trace("t", name="trace", user_id="u", tags=["x"], timestamp=EARLY)],
        observations=[
            observation(
                "o", "t", internal_model_id="m", end_time=EARLY + 1500 * MILLISECOND, cost_details={"total": 1}
            ),
            observation("orphan", "gone", internal_model_id="theirs"),
        ],
        scores=[score("1", "n", 1.0, trace_id="t", observation_id="o"), score("2", "n", 7.0, trace_id="t")],
        models=[{"id": "m", "project_id": None}, {"id": "theirs", "project_id": "other"}],
        pricing_tiers=[
            {"id": "d", "model_id": "m", "is_default": True},
            {"id": "x", "model_id": "m", "is_default": False},
        ],
        prices=[
            {"id": "1", "model_id": "m", "project_id": None, "pricing_tier_id": "d", "usage_type": "input", "price": 3},
            {
                "id": "2",
                "model_id": "m",
                "project_id": None,
                "pricing_tier_id": "x",
                "usage_type": "output",
                "price": 4,
            },
        ],
    )

    own, orphan = rows(of, "observations").rows

    assert [own[name] for name in ("traceName", "userId", "traceTags", "traceTimestamp")] == [
        "trace",
        "u",
        ["x"],
        EARLY,
    ]
    assert [own[name] for name in ("latency", "totalCost", "n")] == [Decimal("1.5"), 1, Bag((1.0,))]
    assert [own[name] for name in ("modelId", "inputPrice", "outputPrice")] == ["m", 3, None]
    assert [orphan[name] for name in ("traceName", "traceTags", "traceTimestamp")] == [None, [], None]
    assert [orphan[name] for name in ("modelId", "internalModelId", "n")] == [None, "theirs", None]


def test_observations_from_events_have_the_same_columns_and_scores_of_both_levels() -> None:
    scores = [score("1", "n", 1.0, trace_id="t", observation_id="o"), score("2", "n", 7.0, trace_id="t")]
    of = world(events_full=[event("o", "t", trace_name="trace", user_id="")], scores=scores)

    found = rows(of, "observations", events=True)

    assert found.columns == rows(of, "observations").columns
    (row,) = found.rows
    assert [row[name] for name in ("traceName", "userId", "statusMessage", "name")] == ["trace", None, None, ""]
    assert row["n"] == Bag((1.0, 7.0))


def test_an_event_cuts_durations_to_milliseconds_that_passed() -> None:
    start = EARLY + timedelta(microseconds=900)
    of = world(events_full=[event("o", "t", start_time=start, end_time=start + timedelta(microseconds=2400))])

    assert rows(of, "events").rows[0]["latencyMs"] == 2


def test_an_instant_before_1970_is_like_any_other() -> None:
    start = datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)
    of = world(observations=[observation("o", "t", start_time=start, end_time=start + SECOND)])

    assert rows(of, "observations").rows[0]["latency"] == 1


def test_traces_are_derived_from_events_when_there_is_no_legacy_trace() -> None:
    spans = [
        event(
            "root",
            "t",
            name="root",
            input="in",
            start_time=EARLY + MILLISECOND,
            tags=["b"],
            metadata_names=["k"],
            metadata_values=["v"],
        ),
        event("child", "t", parent_span_id="root", user_id="old", start_time=EARLY, tags=["a", "b"], level="ERROR"),
        event("last", "t", parent_span_id="root", user_id="new", public=True),
    ]

    found = table(world(events_full=spans), "traces")

    (item,) = found.items
    names = ("id", "timestamp", "name", "userId", "tags", "public")
    assert [item.cells[name] for name in names] == ["t", EARLY, "root", "new", ["a", "b"], True]
    assert [item.facts[name] for name in ("level", "metadata")] == ["ERROR", [{"k": "v"}]]


def test_one_legacy_trace_keeps_events_out_of_traces() -> None:
    assert rows(world(traces=[trace("old")], events_full=[event("e", "t")]), "traces").ids == ["old"]
