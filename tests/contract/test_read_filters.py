"""Filters, search and order against an oracle in plain Python, on random rows and random queries."""

import json
import operator
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from config.errors import Rejected
from tests.services.stacks import Servers
from tests.support.databases import CUTOFF, Databases, open_databases

pytestmark = pytest.mark.clickhouse

Row = dict[str, Any]

TEXTS = [
    "",
    "a",
    "A",
    "ab",
    "b%",
    "a_b",
    "\\",
    "a\\b",
    "'; DROP TABLE traces; --",
    "{x:String}",
    "ü",
    "Ü",
    "日本",
    "😀",
    'q"q',
    "\t\n",
]
IDS = [f"{text or 'none'}-{number}" for number in range(3) for text in TEXTS]
JSONS = ['{"k": "\\u00fc"}', '{"t": "a_b"}', "plain ü", "[1, 2]", "100%"]
KEYS = ["evaluator_id", "evaluation_rule_id", "job_configuration_id", "it's"]
INSTANTS = [
    "2026-05-10T12:00:00.000Z",
    "2026-05-10T12:00:00.001Z",
    "2026-05-11T00:00:00.000Z",
    "1969-07-20T20:17:40.123Z",
    "2026-04-01T00:00:00.000Z",
]

COLUMNS: dict[str, Callable[[Row], Any]] = {
    "bookmarked": lambda row: row["bookmarked"],
    "⭐️": lambda row: row["bookmarked"],
    "id": lambda row: row["id"],
    "Trace ID": lambda row: row["id"],
    "name": lambda row: row["name"],
    "Trace Name": lambda row: row["name"],
    "timestamp": lambda row: datetime.fromisoformat(row["timestamp"]),
    "userId": lambda row: row["user_id"],
    "Session ID": lambda row: row["session_id"],
    "metadata": lambda row: row["metadata"],
    "evaluatorId": lambda row: row["metadata"].get("evaluator_id"),
    "ruleId": lambda row: row["metadata"].get("evaluation_rule_id", row["metadata"].get("job_configuration_id")),
    "version": lambda row: row["version"],
    "Release": lambda row: row["release"],
    "environment": lambda row: row["environment"],
    "tags": lambda row: row["tags"],
    "Trace Tags": lambda row: row["tags"],
}
SCALARS = [
    "id",
    "Trace ID",
    "name",
    "Trace Name",
    "userId",
    "Session ID",
    "evaluatorId",
    "ruleId",
    "version",
    "Release",
    "environment",
]


def random_rows(seed: int) -> list[Row]:
    dice = random.Random(seed)

    def maybe() -> str | None:
        return dice.choice([None, *TEXTS])

    def row(number: int) -> Row:
        return {
            "id": IDS[number % len(IDS)],
            "project_id": dice.choice(["p", "p", "p", "q"]),
            "timestamp": dice.choice(INSTANTS),
            "name": dice.choice(TEXTS),
            "user_id": maybe(),
            "session_id": maybe(),
            "release": maybe(),
            "version": maybe(),
            "environment": dice.choice(["default", "a", "A"]),
            "bookmarked": dice.random() < 0.5,
            "public": False,
            "tags": dice.sample(TEXTS, dice.randrange(4)),
            "input": dice.choice([None, *JSONS, *TEXTS]),
            "output": dice.choice([None, *JSONS, *TEXTS]),
            "metadata": {key: dice.choice(TEXTS) for key in KEYS if dice.random() < 0.4},
            "event_ts": f"2026-05-12T00:00:00.{number:03}Z",
            "is_deleted": int(dice.random() < 0.1),
        }

    return [row(number) for number in range(200)]


def latest(rows: list[Row]) -> list[Row]:
    versions: dict[str, Row] = {}
    for row in sorted((row for row in rows if row["project_id"] == "p"), key=lambda row: row["event_ts"]):
        versions[row["id"]] = row
    return [
        row for row in versions.values() if not row["is_deleted"] and datetime.fromisoformat(row["timestamp"]) < CUTOFF
    ]


COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "contains": operator.contains,
    "does not contain": lambda value, wanted: wanted not in value,
    "starts with": str.startswith,
    "ends with": str.endswith,
    "any of": lambda value, wanted: set(value) & set(wanted),
    "none of": lambda value, wanted: not set(value) & set(wanted),
    "all of": lambda value, wanted: set(wanted) <= set(value),
}


def met(row: Row, query: Row) -> bool:
    value = COLUMNS[query["column"]](row)
    wanted = query["value"]
    if query["type"] == "null":
        return bool((value is None) == (query["operator"] == "is null"))
    if query["type"] == "stringObject":
        value = value.get(query["key"])
    if value is None:
        return query["operator"] in {"does not contain", "none of"}
    if query["type"] == "datetime":
        wanted = datetime.fromisoformat(wanted)
    if query["type"] == "stringOptions" and isinstance(value, str):
        value = [value]
    return bool(COMPARED[query["operator"]](value, wanted))


def found(row: Row, text: str, kinds: list[str] | None) -> bool:
    columns = {
        "id": ["id", "user_id", "name"],
        "content": ["input", "output"],
        "input": ["input"],
        "output": ["output"],
    }
    for kind in kinds or ["id"]:
        spelled = {text} if kind == "id" else {text, "".join(c if c < "\x80" else json.dumps(c)[1:-1] for c in text)}
        for column in columns[kind]:
            if row[column] is not None and any(each.casefold() in row[column].casefold() for each in spelled):
                return True
    return False


text_operators = st.sampled_from(["=", "contains", "does not contain", "starts with", "ends with"])
some_texts = st.sampled_from(TEXTS + IDS) | st.text(st.characters(codec="utf-8"), max_size=3)
filters = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("string"), "column": st.sampled_from(SCALARS), "operator": text_operators, "value": some_texts}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("stringOptions"),
            "column": st.sampled_from([*SCALARS, "tags"]),
            "operator": st.sampled_from(["any of", "none of"]),
            "value": st.lists(some_texts, min_size=1, max_size=4),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("arrayOptions"),
            "column": st.sampled_from(["tags", "Trace Tags"]),
            "operator": st.sampled_from(["any of", "none of", "all of"]),
            "value": st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("stringObject"),
            "column": st.just("metadata"),
            "key": st.sampled_from([*KEYS, "nowhere"]),
            "operator": text_operators,
            "value": some_texts,
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("datetime"),
            "column": st.just("timestamp"),
            "operator": st.sampled_from([">", "<", ">=", "<="]),
            "value": st.sampled_from(INSTANTS),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("boolean"),
            "column": st.sampled_from(["bookmarked", "⭐️"]),
            "operator": st.sampled_from(["=", "<>"]),
            "value": st.booleans(),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("null"),
            "column": st.sampled_from(SCALARS),
            "operator": st.sampled_from(["is null", "is not null"]),
            "value": st.just(""),
        }
    ),
)
searches = st.none() | st.tuples(
    some_texts.filter(bool),
    st.none() | st.lists(st.sampled_from(["id", "content", "input", "output"]), min_size=1, max_size=2),
)
orders = st.none() | st.fixed_dictionaries(
    {"column": st.sampled_from([*SCALARS, "timestamp", "bookmarked"]), "order": st.sampled_from(["ASC", "DESC"])}
)

SEED = 7


@pytest.fixture(scope="module")
def databases(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    with servers.stack(tmp_path_factory.mktemp("filters")) as stack, open_databases(stack.databases()) as databases:
        rows = random_rows(SEED)
        for start in range(0, len(rows), 50):
            databases.put("traces", *rows[start : start + 50])
        yield databases


@pytest.mark.slow
@settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(asked=st.lists(filters, max_size=2), search=searches, order=orders)
def test_the_rows_read_are_those_that_the_query_asks_for(
    databases: Databases, asked: list[Row], search: tuple[str, list[str] | None] | None, order: Row | None
) -> None:
    expected = [row for row in latest(random_rows(SEED)) if all(met(row, each) for each in asked)]
    query: Row = {"filter": asked, "orderBy": order}
    if search is not None:
        text, kinds = search
        expected = [row for row in expected if found(row, text, kinds)]
        query |= {"searchQuery": text} if kinds is None else {"searchQuery": text, "searchType": kinds}
    read = databases.read(**query).ids()
    assert sorted(read) == sorted(row["id"] for row in expected)
    if order is not None:
        values = {row["id"]: COLUMNS[order["column"]](row) for row in expected}
        in_order = [values[each] for each in read]
        there = [value.encode() if isinstance(value, str) else value for value in in_order if value is not None]
        assert there == sorted(there, reverse=order["order"] == "DESC")
        assert in_order[len(there) :] == [None] * (len(in_order) - len(there))


def test_hundreds_of_filters_with_long_values_are_no_trouble(databases: Databases) -> None:
    each = {"type": "string", "column": "name", "operator": "does not contain"}
    filters = [{**each, "value": f"{'é' * 200} {number}"} for number in range(500)]
    assert sorted(databases.ids(*filters)) == sorted(databases.ids())


def test_more_filters_are_rejected_with_the_limit(databases: Databases) -> None:
    each = {"type": "string", "column": "name", "operator": "does not contain", "value": "n"}
    with pytest.raises(Rejected, match="too many filters: 2,000, and 500 at most"):
        databases.ids(*[{**each, "value": f"{number:050}"} for number in range(2000)])


def test_filters_that_make_the_statement_too_long_are_rejected(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.read.clickhouse.STATEMENT_BYTES", 20_000)
    each = {"type": "stringObject", "column": "metadata", "operator": "does not contain", "value": "n"}
    with pytest.raises(Rejected, match="too many filters: its statement has"):
        databases.ids(*[{**each, "key": f"key {number}"} for number in range(200)])


def test_ten_thousand_values_in_one_list_are_no_trouble(databases: Databases) -> None:
    options = [f"no such id, and a long one, {number}" for number in range(10_000)]
    wanted = latest(random_rows(SEED))[0]["id"]
    ask = {"type": "stringOptions", "column": "id", "operator": "any of", "value": [*options, wanted]}
    assert databases.ids(ask) == [wanted]


def test_the_instants_of_the_rows_are_compared_to_the_microsecond(databases: Databases) -> None:
    noon = datetime(2026, 5, 10, 12, tzinfo=UTC)
    ask = {"type": "datetime", "column": "timestamp", "operator": ">", "value": noon.isoformat()}
    at = {row["id"] for row in latest(random_rows(SEED)) if datetime.fromisoformat(row["timestamp"]) > noon}
    assert set(databases.ids(ask)) == at
    assert set(databases.ids({**ask, "value": "2026-05-10T11:59:59.999999Z"})) > at
