"""Reading `observations`, from ClickHouse with their traces, and with models and prices from the database."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import insert

from config.tables import comments, models, prices, pricing_tiers
from tests.support.databases import MAY, Databases, Row

pytestmark = pytest.mark.clickhouse

OBSERVATION: Row = {
    "id": "o",
    "trace_id": "t",
    "project_id": "p",
    "type": "GENERATION",
    "start_time": MAY,
    "name": "n",
    "level": "DEFAULT",
    "event_ts": MAY,
    "is_deleted": 0,
}
LATER = {"event_ts": "2026-05-11 00:00:00.000"}


def put(databases: Databases, *rows: Row) -> None:
    databases.put("observations", *({**OBSERVATION, **row} for row in rows))


def ids(databases: Databases, *filters: Row, **query: object) -> list[str]:
    return databases.ids(*filters, tableName="observations", **query)


def number(column: str, operator: str, value: float) -> Row:
    return {"type": "number", "column": column, "operator": operator, "value": value}


def priced(databases: Databases, model: str, project: str | None, price: str, *, default: bool = True) -> None:
    tier = {"id": f"tier of {model}", "model_id": model, "name": "Standard", "is_default": default}
    price_of = {"model_id": model, "project_id": project, "pricing_tier_id": tier["id"], "price": Decimal(price)}
    with databases.engine.begin() as connection:
        connection.execute(
            insert(models).values(id=model, project_id=project, model_name=model, match_pattern="x", unit="TOKENS")
        )
        connection.execute(insert(pricing_tiers).values(**tier))
        connection.execute(insert(prices).values(id=f"input of {model}", usage_type="input", **price_of))


def test_a_row_has_the_values_of_its_observation_and_of_its_trace(databases: Databases) -> None:
    databases.traces({"name": "chat", "user_id": "u", "tags": ["b", "a"], "timestamp": "2026-05-09 01:02:03.004"})
    put(
        databases,
        {
            "parent_observation_id": "root",
            "end_time": "2026-05-10 12:00:02.500",
            "completion_start_time": "2026-05-10 12:00:00.250",
            "input": '{"a": 1}',
            "output": "words",
            "metadata": {"n": "1.10", "s": "text"},
            "provided_model_name": "gpt",
            "internal_model_id": "m",
            "model_parameters": '{"temperature": 0.10}',
            "usage_details": {"input": 18446744073709551615, "output_reasoning": 2, "total": 3},
            "cost_details": {"input": "0.000001234567", "output": "1.5", "total": "1.500001234567"},
            "prompt_name": "greet",
            "prompt_version": 3,
            "tool_definitions": {"search": '{"x": 1}'},
            "tool_calls": ["call"],
            "tool_call_names": ["search"],
        },
    )
    priced(databases, "m", None, "0.0000025")
    (row,) = databases.read(tableName="observations", form="JSONL").rows
    assert (row["traceName"], row["userId"], row["traceTags"]) == ("chat", "u", ["b", "a"])
    assert row["traceTimestamp"] == datetime(2026, 5, 9, 1, 2, 3, 4000, tzinfo=UTC)
    assert (row["latency"], row["timeToFirstToken"]) == (Decimal("2.5"), Decimal("0.25"))
    assert (row["inputUsage"], row["outputUsage"], row["totalUsage"]) == (18446744073709551615, 2, 3)
    assert (row["inputCost"], row["outputCost"]) == (Decimal("0.000001234567"), Decimal("1.5"))
    assert row["totalCost"] == Decimal("1.500001234567")
    assert json.loads(row["costDetails"], parse_float=Decimal)["total"] == Decimal("1.500001234567")
    assert json.loads(row["usageDetails"])["input"] == 18446744073709551615
    assert row["metadata"] == '{"n":1.10,"s":"text"}'
    assert (row["toolDefinitions"], row["toolCalls"]) == ('{"search":"{\\"x\\": 1}"}', ["call"])
    assert (row["toolDefinitionsCount"], row["toolCallsCount"]) == (1, 1)
    assert (row["modelId"], row["inputPrice"]) == ("m", Decimal("0.0000025"))
    assert (row["outputPrice"], row["totalPrice"], row["comments"]) == (None, None, "[]")
    assert (row["input#json"], row["output#json"], row["modelParameters#json"]) == (True, False, True)


def test_an_observation_without_a_trace_end_or_usage_has_nothing_there(databases: Databases) -> None:
    put(databases, {"trace_id": "nowhere"})
    (row,) = databases.read(tableName="observations").rows
    missing = ("traceName", "traceTimestamp", "userId", "endTime", "latency", "timeToFirstToken", "modelId")
    assert [row[name] for name in missing] == [None] * len(missing)
    assert (row["inputCost"], row["outputCost"], row["totalCost"]) == (None, None, 0)
    assert (row["inputUsage"], row["totalUsage"], row["traceTags"]) == (0, 0, [])


def test_a_version_of_another_type_or_day_replaces_the_older_one(databases: Databases) -> None:
    put(databases, {"id": "typed"}, {"id": "moved"}, {"id": "gone"})
    put(databases, {"id": "typed", "type": "SPAN", "name": "new", **LATER})
    put(databases, {"id": "moved", "start_time": "2026-05-02 00:00:00.000", "name": "new", **LATER})
    put(databases, {"id": "gone", "type": "SPAN", "is_deleted": 1, **LATER})
    rows = databases.read(tableName="observations", orderBy={"column": "id", "order": "ASC"}).rows
    assert [(row["id"], row["name"], row["type"]) for row in rows] == [
        ("moved", "new", "GENERATION"),
        ("typed", "new", "SPAN"),
    ]


def test_nothing_of_another_project_is_read(databases: Databases) -> None:
    for project in ("p", "q"):
        databases.traces({"project_id": project, "name": f"of {project}"})
        put(databases, {"project_id": project, "internal_model_id": "of q"}, {"project_id": project, "id": "all"})
        databases.scores({"project_id": project, "observation_id": "o", "name": f"of {project}"})
        with databases.engine.begin() as connection:
            connection.execute(
                insert(comments).values(
                    id=project, project_id=project, object_type="OBSERVATION", object_id="o", content=project
                )
            )
    priced(databases, "of q", "q", "1")
    read = databases.read(tableName="observations", orderBy={"column": "id", "order": "DESC"})
    assert [column.name for column in read.columns][-2:] == ["comments", "of p"]
    mine = read.rows[0]
    assert (mine["traceName"], mine["modelId"], mine["inputPrice"]) == ("of p", None, None)
    assert [each["content"] for each in json.loads(mine["comments"])] == ["p"]
    assert len(read.rows) == 2


def test_only_scores_of_the_observation_count_and_comments_keep_them_apart(databases: Databases) -> None:
    put(databases, {"id": "o"}, {"id": "other"})
    databases.scores(
        {"value": 1, "observation_id": "o", "comment": "good"},
        {"value": 2, "observation_id": "o", "comment": "bad"},
        {"value": 3, "observation_id": "o", "comment": "bad"},
        {"value": 9, "observation_id": None},
        {"value": 8, "observation_id": "o", "trace_id": "elsewhere"},
    )
    rows = databases.read(tableName="observations", orderBy={"column": "id", "order": "ASC"}).rows
    assert [row["s"] for row in rows] == [[1.0, 2.5], None]
    average = {"type": "numberObject", "column": "scores", "key": "s", "operator": "=", "value": 2.5}
    assert ids(databases, average) == ["o"]
    assert ids(databases, {**average, "value": 9}) == []


def test_prices_are_those_of_the_default_tier(databases: Databases) -> None:
    put(databases, {"id": "a", "internal_model_id": "dear"}, {"id": "b", "internal_model_id": "fair"}, {"id": "c"})
    priced(databases, "dear", "p", "1000", default=False)
    priced(databases, "fair", "p", "99999999.000000000000000000000000000001")
    rows = databases.read(tableName="observations", orderBy={"column": "id", "order": "ASC"}).rows
    assert [row["modelId"] for row in rows] == ["dear", "fair", None]
    assert rows[0]["inputPrice"] is None
    assert abs(rows[1]["inputPrice"] - 99999999) < Decimal("0.001")


def test_trace_columns_filter_and_sort_observations(databases: Databases) -> None:
    databases.traces({"id": "t1", "user_id": "ann", "tags": ["x"]}, {"id": "t2", "user_id": "bob", "session_id": "s"})
    put(databases, {"id": "a", "trace_id": "t1"}, {"id": "b", "trace_id": "t2"}, {"id": "c", "trace_id": "none"})
    text = {"type": "string", "column": "userId", "operator": "=", "value": "ann"}
    assert ids(databases, text) == ["a"]
    assert sorted(ids(databases, {**text, "operator": "does not contain"})) == ["b", "c"]
    assert ids(databases, {"type": "arrayOptions", "column": "traceTags", "operator": "any of", "value": ["x"]}) == [
        "a"
    ]
    assert sorted(ids(databases, {"type": "null", "column": "sessionId", "operator": "is null", "value": ""})) == [
        "a",
        "c",
    ]
    assert ids(databases, orderBy={"column": "userId", "order": "DESC"}) == ["b", "a", "c"]


def test_numbers_are_compared_digit_by_digit(databases: Databases) -> None:
    big = 9007199254740993
    put(
        databases,
        {"id": "a", "usage_details": {"total": big}, "cost_details": {"total": "0.300000000000"}},
        {"id": "b", "usage_details": {"total": big - 1}, "cost_details": {"total": "0.300000000001"}},
    )
    assert ids(databases, number("totalTokens", "=", big)) == ["a"]
    assert ids(databases, number("totalTokens", "<", big)) == ["b"]
    assert ids(databases, number("totalCost", "=", 0.3)) == ["a"]
    assert ids(databases, number("totalCost", ">", 0.3)) == ["b"]
    assert ids(databases, number("totalCost", ">", 0.3000000000005)) == ["b"]
    assert ids(databases, number("totalCost", "=", 0.3000000000005)) == []
    assert ids(databases, number("totalCost", ">", 1e300)) == []
    assert len(ids(databases, number("totalCost", ">=", -1e300))) == 2


def test_a_position_in_the_trace_counts_by_start(databases: Databases) -> None:
    put(
        databases,
        {"id": "x", "start_time": "2026-05-10 12:00:00.000"},
        {"id": "y", "start_time": "2026-05-10 13:00:00.000", "parent_observation_id": "x"},
        {"id": "z", "start_time": "2026-05-10 14:00:00.000", "parent_observation_id": "x", "type": "SPAN"},
        {"id": "w", "trace_id": "u", "parent_observation_id": "gone"},
    )
    place: Row = {"type": "positionInTrace", "column": "positionInTrace", "operator": "="}
    assert sorted(ids(databases, {**place, "key": "first"})) == ["w", "x"]
    assert sorted(ids(databases, {**place, "key": "last"})) == ["w", "z"]
    assert ids(databases, {**place, "key": "root"}) == ["x"]
    assert ids(databases, {**place, "key": "nthFromEnd", "value": 2}) == ["y"]


@pytest.mark.parametrize(("table", "source"), [("observations", "observations"), ("events", "events_full")])
def test_the_keys_of_usage_are_case_sensitive(databases: Databases, table: str, source: str) -> None:
    identity = "id" if table == "observations" else "span_id"
    span = {"trace_id": "t", "project_id": "p", "type": "SPAN", "start_time": MAY, "event_ts": MAY, "is_deleted": 0}
    usage = {"output": 1, "OUTPUT_x": 2, "xoutput": 4}
    databases.put(source, {**span, identity: "o", "usage_details": usage})
    asked = {"type": "number", "column": "outputTokens", "operator": "=", "value": 5}
    assert databases.ids(asked, tableName=table) == ["o"]


def test_an_observation_that_took_no_time_had_any_number_of_tokens_per_second(databases: Databases) -> None:
    span = {"trace_id": "t", "project_id": "p", "type": "SPAN", "event_ts": MAY, "is_deleted": 0, "start_time": MAY}
    databases.put(
        "observations",
        {**span, "id": "at once", "end_time": MAY, "usage_details": {"output": 1}},
        {**span, "id": "nothing", "end_time": MAY},
        {**span, "id": "running", "usage_details": {"output": 1}},
    )
    asked = {"type": "number", "column": "tokensPerSecond", "operator": ">", "value": 1e9}
    assert databases.ids(asked, tableName="observations") == ["at once"]
    assert databases.ids({**asked, "operator": "<"}, tableName="observations") == []


def test_metadata_without_a_key_is_null(databases: Databases) -> None:
    named = {"metadata": {"k": ""}}
    databases.traces({"id": "a", "session_id": "a"}, {"id": "b", "session_id": "b", **named})
    span = {"trace_id": "t", "project_id": "p", "type": "SPAN", "start_time": MAY, "event_ts": MAY, "is_deleted": 0}
    databases.put("observations", {**span, "id": "a"}, {**span, "id": "b", **named})
    event = {"metadata_names": ["k"], "metadata_values": [""]}
    databases.put("events_full", {**span, "span_id": "a"}, {**span, "span_id": "b", **event})
    databases.scores({"id": "a"}, {"id": "b", **named})
    asked = {"type": "null", "column": "metadata", "operator": "is null", "value": ""}
    for table in ("traces", "observations", "events", "scores", "sessions"):
        assert databases.ids(asked, tableName=table) == ["a"], table
        assert databases.ids({**asked, "operator": "is not null"}, tableName=table) == ["b"], table


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "boolean", "column": "isRootObservation", "operator": "=", "value": True},
        {"type": "boolean", "column": "hasInput", "operator": "=", "value": True},
        {"type": "arrayOptions", "column": "tags", "operator": "any of", "value": ["x"]},
        {"type": "string", "column": "release", "operator": "=", "value": "r1"},
        {"type": "string", "column": "input", "operator": "matches", "value": "WORDS some"},
        {"type": "stringOptions", "column": "providedModelName", "operator": "any of", "value": ["gpt"]},
        {"type": "stringOptions", "column": "ruleId", "operator": "any of", "value": ["r"]},
        {"type": "numberObject", "column": "Trace Scores (numeric)", "operator": "=", "key": "n", "value": 2},
    ],
    ids=lambda asked: str(asked["column"]),
)
def test_observations_of_events_are_filtered_by_the_columns_of_events(databases: Databases, asked: Row) -> None:
    span = {"project_id": "p", "type": "SPAN", "start_time": MAY, "event_ts": MAY, "is_deleted": 0}
    wanted = {
        "trace_id": "t",
        "tags": ["x"],
        "release": "r1",
        "input": "some words",
        "provided_model_name": "gpt",
        "metadata_names": ["evaluation_rule_id"],
        "metadata_values": ["r"],
    }
    databases.put(
        "events_full",
        {**span, "span_id": "wanted", **wanted},
        {**span, "span_id": "other", "trace_id": "u", "parent_span_id": "wanted"},
    )
    databases.scores({"name": "n", "value": 2, "observation_id": None})
    assert databases.ids(asked, tableName="observations", useEventsTable=True) == ["wanted"]
