import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from config.errors import Rejected
from pipeline.ignored_keys import describe_names, shorten_names
from pipeline.spec import ExportSpec, list_ignored_keys, read_query, read_spec
from pipeline.types import OutputOptions

QUERY = {"tableName": "traces", "filter": None, "orderBy": None}


def spec(**changes: Any) -> ExportSpec:
    given: dict[str, Any] = {
        "project_id": "p1",
        "export_id": "e1",
        "attempt": 1,
        "created_at": datetime(2026, 3, 4, 5, 6, 7, 891999, tzinfo=UTC),
        "query": QUERY,
        "format": "CSV",
    }
    return read_spec(**(given | changes))


@pytest.mark.parametrize(
    ("form", "compression", "ending"),
    [
        ("CSV", "none", ".csv"),
        ("csv", "gzip", ".csv.gz"),
        ("JSON", "zstd", ".json.zst"),
        ("JSONL", "gzip", ".jsonl.gz"),
        ("PARQUET", "gzip", ".parquet"),
    ],
)
def test_the_key_says_when_what_whose_and_in_which_form(form: str, compression: str, ending: str) -> None:
    made = spec(format=form, output=OutputOptions(prefix="exports/"), query={**QUERY, "compression": compression})
    assert made.key == f"exports/1772600767891-e1-lf-traces-export-p1{ending}"
    assert made.former_key == f"exports/1772600767891-lf-traces-export-p1-e1{ending}"


def test_the_key_is_the_same_on_every_attempt_and_in_every_zone() -> None:
    there = datetime(2026, 3, 4, 7, 6, 7, 891999, tzinfo=timezone(timedelta(hours=2)))
    assert spec(attempt=1).key == spec(attempt=9, created_at=there).key


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "a b", "a%2Fb", "..", "é", "a?b#c", "a\\b", "a\nb"])
def test_no_id_can_leave_the_prefix(name: str) -> None:
    key = spec(
        project_id=name, export_id=name, output=OutputOptions(prefix="x/"), query={**QUERY, "tableName": name}
    ).key
    assert key.count("/") == 1
    assert not set(" ?#\\\n") & set(key)
    assert key != spec(project_id="a", export_id=name, output=OutputOptions(prefix="x/")).key


def test_a_query_may_be_stored_as_text() -> None:
    assert spec(query=json.dumps(QUERY)).query == spec(query=QUERY).query


def test_what_the_application_stores_is_read() -> None:
    query = read_query(
        {
            "tableName": "traces",
            "filter": [
                {"column": "Timestamp", "type": "datetime", "operator": ">=", "value": "2026-01-01T00:00:00.000Z"},
                {"column": "a", "type": "string", "operator": "does not contain", "value": "x"},
                {"column": "a", "type": "number", "operator": "<=", "value": 1},
                {"column": "a", "type": "stringOptions", "operator": "none of", "value": ["x"]},
                {"column": "a", "type": "categoryOptions", "operator": "any of", "key": "k", "value": ["x"]},
                {"column": "a", "type": "arrayOptions", "operator": "all of", "value": []},
                {"column": "a", "type": "stringObject", "operator": "=", "key": "k", "value": "x"},
                {"column": "a", "type": "numberObject", "operator": "=", "key": "k", "value": 1.5},
                {"column": "a", "type": "booleanObject", "operator": "<>", "key": "k", "value": True},
                {"column": "a", "type": "boolean", "operator": "=", "value": False},
                {"column": "a", "type": "null", "operator": "is not null", "value": ""},
                {"column": "a", "type": "positionInTrace", "operator": "=", "key": "nthFromEnd", "value": 2},
            ],
            "searchQuery": "",
            "searchType": [],
            "orderBy": {"column": "timestamp", "order": "DESC"},
            "limit": 50,
            "page": 0,
            "useEventsTable": False,
        }
    )
    assert [each.type for each in query.filter or ()][:2] == ["datetime", "string"]
    assert len(query.filter or ()) == 12
    assert query.compression == "none"


def test_an_instant_without_a_zone_is_utc() -> None:
    asked = {"column": "a", "type": "datetime", "operator": ">", "value": "2026-01-01T00:00:00"}
    (read,) = read_query({**QUERY, "filter": [asked]}).filter or ()
    assert read.value == datetime(2026, 1, 1, tzinfo=UTC)


FILTER = {"column": "a", "type": "string", "operator": "=", "value": "x"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tableName": 7}, "tableName: should be a valid string"),
        (
            {"filter": [FILTER, {**FILTER, "operator": "=="}]},
            "filter 2, operator: '==' is unknown; it can be '='",
        ),
        ({"filter": [{**FILTER, "type": "text"}]}, "filter 1: the type 'text' is unknown; it can be 'datetime', "),
        ({"filter": [{"column": "a"}]}, "filter 1: has no 'type'"),
        ({"filter": [{**FILTER, "value": 5}]}, "filter 1, value: should be a valid string"),
        ({"filter": [{**FILTER, "value": "\ud800"}]}, "filter 1, value: should be valid Unicode"),
        ({"filter": [{**FILTER, "value": "x" * 20_000}]}, "filter 1, value: String should have at most 16384"),
        ({"filter": [{**FILTER, "type": "stringObject"}]}, "filter 1, key: is missing"),
        (
            {"filter": [{**FILTER, "type": "stringOptions", "operator": "any of", "value": []}]},
            "filter 1, value: should not be empty",
        ),
        (
            {"filter": [{**FILTER, "type": "arrayOptions", "operator": "any of", "value": []}]},
            "value should name at least one option",
        ),
        (
            {"filter": [{**FILTER, "type": "datetime", "operator": ">", "value": "9999-01-01"}]},
            "should be a date after 1900 and before 2299",
        ),
        ({"filter": [{**FILTER, "type": "number", "value": float("nan")}]}, "should be a finite number"),
        (
            {"filter": [{**FILTER, "type": "positionInTrace", "operator": "=", "key": "nthFromStart", "value": None}]},
            "value should be 1 or more for the key 'nthFromStart'",
        ),
        ({"orderBy": {"column": "a", "order": "UP"}}, "orderBy, order: 'UP' is unknown; it can be 'ASC' or 'DESC'"),
        ({"searchQuery": "x", "searchType": []}, "At least one search type is required"),
        ({"compression": "brotli"}, "compression: 'brotli' is unknown; it can be 'none', 'gzip' or 'zstd'"),
        ({"columns": []}, "columns: should not be empty"),
        ({"columns": "id"}, "columns: should be a valid tuple"),
        ({"columns": ["id", 7]}, "columns 2: should be a valid string"),
        ({"columns": ["id", "name", "id"]}, "columns: 'id' is named twice"),
        ({"columns": ["scores.a", "scores.a"]}, "columns: 'scores.a' is named twice"),
        (
            {"columns": ["scores", "id", "scores.a"]},
            "columns: 'scores.a' is named twice, because 'scores' stands for all scores",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Rejected) as raised:
        read_query({**QUERY, **change})
    assert told in str(raised.value)


def test_unknown_keys_are_ignored_and_named_by_their_place() -> None:
    query = {
        **QUERY,
        "filter": [FILTER, {**FILTER, "colour": "red", "type": "string"}, {**FILTER, "key": "k"}],
        "orderBy": {"column": "a", "order": "ASC", "nulls": {"filter": []}},
        "search_query": "x",
        "tabelName": None,
    }
    made = spec(query=query)
    assert made.ignored == ("search_query", "tabelName", "filter[1].colour", "filter[2].key", "orderBy.nulls")
    assert made.query == spec(query={**QUERY, "filter": [FILTER] * 3, "orderBy": {"column": "a", "order": "ASC"}}).query
    assert spec(query=json.dumps(query)).ignored == list_ignored_keys(query) == made.ignored
    assert spec().ignored == ()


@pytest.mark.parametrize(
    "change",
    [
        {"filter": [{**FILTER, "type": "newType", "colour": "red"}]},
        {"filter": [{**FILTER, "operator": "newOperator", "colour": "red"}]},
        {"orderBy": {"column": "a", "order": "NEW", "colour": "red"}},
        {"filter": "x", "colour": "red"},
        {"filter": [7]},
    ],
)
def test_unknown_values_are_refused_beside_unknown_keys(change: dict[str, Any]) -> None:
    with pytest.raises(Rejected, match="The query can't be read"):
        read_query({**QUERY, **change})
    assert list_ignored_keys({**QUERY, **change}) == ()


def test_names_of_unknown_keys_can_be_stored() -> None:
    assert spec(query={**QUERY, "a\0b": 1, "\ud800": 1, "": 1, "é": 1}).ignored == ("ab", "?", "", "é")


def test_the_list_of_unknown_keys_is_short_for_people_and_says_how_many_more() -> None:
    names = [f"{number}{'x' * 200}" for number in range(1_000_000)]
    assert len(shorten_names(names)) == 10
    assert {len(each) for each in shorten_names(names)} == {100}
    text = describe_names(names)
    assert text is not None
    assert text.endswith("… and 999,990 more")
    assert len(text) < 1_100
    assert describe_names([]) is None
    assert describe_names(["a", "filter[0].b"]) == "a, filter[0].b"


@pytest.mark.parametrize("query", ["{", "", "[]", 5, None, "null"])
def test_what_is_no_query_at_all_is_rejected(query: object) -> None:
    with pytest.raises(Rejected, match="The query can't be read"):
        read_query(query)


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(Rejected, match="'XLSX' is unknown; it can be CSV, JSON, JSONL, PARQUET"):
        spec(format="XLSX")


def test_five_megabytes_of_filter_are_refused() -> None:
    asked = {**FILTER, "type": "stringOptions", "operator": "any of", "value": ["x" * 1000] * 5000}
    with pytest.raises(Rejected, match="The query is too long"):
        read_query({**QUERY, "filter": [asked]})
