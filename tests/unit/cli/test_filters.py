from typing import Any

import pytest
from pydantic import TypeAdapter

from cli.filters import read_filters, split_list
from config.errors import Rejected
from consumer.new_exports import check_query
from pipeline.request import Filter
from pipeline.spec import read_query


def parse(text: str, table: str = "traces") -> dict[str, Any]:
    (one,) = read_filters(table, [text])
    TypeAdapter(Filter).validate_python(one)
    assert isinstance(one, dict)
    return one


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("level=ERROR", {"type": "stringOptions", "column": "level", "operator": "any of", "value": ["ERROR"]}),
        ("name <> chat", {"type": "stringOptions", "column": "name", "operator": "none of", "value": ["chat"]}),
        ("name contains chat", {"type": "string", "column": "name", "operator": "contains", "value": "chat"}),
        ("userId=u 1", {"type": "string", "column": "userId", "operator": "=", "value": "u 1"}),
        ("userId<>u", {"type": "stringOptions", "column": "userId", "operator": "none of", "value": ["u"]}),
        ('userId=" u "', {"type": "string", "column": "userId", "operator": "=", "value": " u "}),
        ("id any-of a, b", {"type": "stringOptions", "column": "id", "operator": "any of", "value": ["a", "b"]}),
        ("latency>2.5", {"type": "number", "column": "latency", "operator": ">", "value": 2.5}),
        ("Latency (s) <= 3", {"type": "number", "column": "Latency (s)", "operator": "<=", "value": 3}),
        ("bookmarked=true", {"type": "boolean", "column": "bookmarked", "operator": "=", "value": True}),
        ("⭐️<>false", {"type": "boolean", "column": "⭐️", "operator": "<>", "value": False}),
        ("tags any-of a,b", {"type": "arrayOptions", "column": "tags", "operator": "any of", "value": ["a", "b"]}),
        (
            'tags all-of a,"b,c"',
            {"type": "arrayOptions", "column": "tags", "operator": "all of", "value": ["a", "b,c"]},
        ),
        ("tags=a,b", {"type": "arrayOptions", "column": "tags", "operator": "any of", "value": ["a,b"]}),
        ("userId is-null", {"type": "null", "column": "userId", "operator": "is null", "value": ""}),
        ("User ID is-not-null", {"type": "null", "column": "User ID", "operator": "is not null", "value": ""}),
        (
            "timestamp>=2026-05-01",
            {"type": "datetime", "column": "timestamp", "operator": ">=", "value": "2026-05-01"},
        ),
        (
            "metadata.a.b = x>1",
            {"type": "stringObject", "column": "metadata", "key": "a.b", "operator": "=", "value": "x>1"},
        ),
        (
            'metadata."a=b \\"c\\"" starts-with x',
            {"type": "stringObject", "column": "metadata", "key": 'a=b "c"', "operator": "starts with", "value": "x"},
        ),
        (
            "scores.accuracy>=0.8",
            {"type": "numberObject", "column": "scores", "key": "accuracy", "operator": ">=", "value": 0.8},
        ),
        (
            "scores.ok=true",
            {"type": "booleanObject", "column": "scores", "key": "ok", "operator": "=", "value": True},
        ),
        (
            "scores.mood=good",
            {"type": "categoryOptions", "column": "scores", "key": "mood", "operator": "any of", "value": ["good"]},
        ),
        (
            "scores.mood none-of good,bad",
            {
                "type": "categoryOptions",
                "column": "scores",
                "key": "mood",
                "operator": "none of",
                "value": ["good", "bad"],
            },
        ),
        (
            "scores_avg.my score<-1e3",
            {"type": "numberObject", "column": "scores_avg", "key": "my score", "operator": "<", "value": -1000},
        ),
    ],
)
def test_a_short_filter_becomes_a_filter_of_a_stored_query(text: str, wanted: dict[str, Any]) -> None:
    assert parse(text) == wanted


def test_a_column_of_a_database_table_is_known() -> None:
    assert parse("metadata.number=3", "dataset_items")["type"] == "stringObject"


def test_json_filters_are_kept_and_can_be_combined_with_short_ones() -> None:
    one = {"type": "string", "column": "name", "operator": "=", "value": "x"}

    read = read_filters("traces", ['{"type": "string", "column": "name", "operator": "=", "value": "x"}', "id=y", "[]"])

    assert read == [one, {"type": "string", "column": "id", "operator": "=", "value": "y"}]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour=red", ["'colour'", "userId", "latency"]),
        ("latency>much", ["'much'", "latency", "number"]),
        ("bookmarked=yes", ["'yes'", "true or false"]),
        ("name", ["operator", "COLUMN"]),
        ("name like x", ["operator", "contains"]),
        ("name chat = x", ["can't be parsed"]),
        ('metadata."a=b', ["quotes"]),
        ("[1", ["not JSON"]),
    ],
)
def test_a_filter_that_cannot_be_parsed_is_rejected_with_a_correct_example(text: str, named: list[str]) -> None:
    with pytest.raises(Rejected) as refused:
        read_filters("traces", [text])

    assert all(name in str(refused.value) for name in named)


@pytest.mark.parametrize(
    ("text", "reason"),
    [('{"a":' * 5000, "nested too deeply"), ("latency>" + "9" * 5000, "more digits than a number can have")],
)
def test_a_filter_that_json_cannot_load_is_rejected(text: str, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        read_filters("traces", [text])


def test_a_query_that_the_table_does_not_support_is_rejected_before_it_is_stored() -> None:
    order = {"tableName": "audit_logs", "orderBy": {"column": "before", "order": "ASC"}}
    of_others = [{"type": "string", "column": "latency", "operator": "=", "value": "x"}]

    with pytest.raises(Rejected, match="'before'"):
        check_query(read_query(order))
    with pytest.raises(Rejected, match="'latency'"):
        check_query(read_query({"tableName": "audit_logs", "filter": of_others}))
    check_query(read_query({"tableName": "audit_logs", "orderBy": {"column": "type", "order": "ASC"}}))


@pytest.mark.parametrize(
    ("text", "parts"),
    [("id, name", ["id", "name"]), ('id,"scores.a,b"', ["id", "scores.a,b"]), ("", []), ("id,,", ["id", "", ""])],
)
def test_a_list_is_split_at_its_commas(text: str, parts: list[str]) -> None:
    assert split_list(text) == parts


@pytest.mark.parametrize("text", ["tags any-of a\rb", "tags any-of a\nb"])
def test_a_list_with_a_line_break_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match="can't be split at its commas"):
        read_filters("traces", [text])
