"""Invalid queries are refused by name with the valid alternatives; SQL in values has no effect."""

from collections.abc import Iterator
from typing import Any

import pytest

from config.errors import Rejected
from pipeline.tables import TABLES
from tests.oracle.columns import columns_of
from tests.services.stacks import Servers
from tests.support.databases import Databases, open_databases

pytestmark = pytest.mark.clickhouse

SQL = "x'; DROP TABLE traces; DELETE FROM audit_logs; --"


@pytest.fixture(scope="module")
def databases(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    with servers.stack(tmp_path_factory.mktemp("refusals")) as stack, open_databases(stack.databases()) as databases:
        databases.traces({"id": "one", "metadata": {"k": "v"}})
        yield databases


def refusal(databases: Databases, table: str, **query: Any) -> str:
    with pytest.raises(Rejected) as raised:
        databases.read(tableName=table, **query)
    return str(raised.value)


@pytest.mark.parametrize("table", TABLES)
def test_an_unknown_column_is_named_with_the_known_ones(databases: Databases, table: str) -> None:
    unknown = {"type": "string", "column": "colour", "operator": "=", "value": "red"}
    known = columns_of(table)
    by_filter = refusal(databases, table, filter=[unknown])
    by_order = refusal(databases, table, orderBy={"column": "colour", "order": "ASC"})
    assert "'colour'" in by_filter
    assert all(column in by_filter for column in known)
    assert "'colour'" in by_order
    assert all(column.id in by_order for column in known.values() if column.sortable)


def test_an_unknown_score_is_named_with_those_of_the_project(databases: Databases) -> None:
    databases.scores({"trace_id": "one", "name": "accuracy"})
    said = refusal(databases, "traces", columns=["id", "scores.acuracy"])
    assert "no score 'acuracy'" in said
    assert "accuracy." in said


def test_scores_alone_are_refused_in_a_project_that_has_none(databases: Databases) -> None:
    assert "the project has none" in refusal(databases, "traces", project="other", columns=["scores"])


@pytest.mark.parametrize("table", TABLES)
def test_a_wrong_filter_type_is_named_with_the_allowed_ones(databases: Databases, table: str) -> None:
    column = next(each for each in columns_of(table).values() if each.type in {"string", "stringOptions"})
    said = refusal(databases, table, filter=[{"type": "number", "column": column.id, "operator": "=", "value": 1}])
    assert f"'{column.id}'" in said
    assert "'number'" in said
    assert "null, string, stringOptions" in said


@pytest.mark.parametrize("table", [table for table in TABLES if table != "events"])
def test_full_text_is_refused_on_other_columns(databases: Databases, table: str) -> None:
    column = next(each for each in columns_of(table).values() if each.type in {"string", "stringOptions"})
    said = refusal(
        databases, table, filter=[{"type": "string", "column": column.id, "operator": "matches", "value": "x"}]
    )
    assert f"'{column.id}'" in said
    assert "'matches'" in said
    assert "=, contains, does not contain, starts with, ends with" in said


@pytest.mark.parametrize(("table", "kind"), [("sessions", "content"), ("scores", "input"), ("audit_logs", "output")])
def test_a_search_of_an_unsearchable_type_is_refused(databases: Databases, table: str, kind: str) -> None:
    said = refusal(databases, table, searchQuery="x", searchType=[kind])
    assert kind in said
    assert table in said


@pytest.mark.parametrize("table", ["prompts", "../traces", ""])
def test_an_unknown_table_is_named_with_the_known_ones(databases: Databases, table: str) -> None:
    said = refusal(databases, table)
    assert repr(table) in said
    assert all(each in said for each in TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_sql_in_a_value_is_only_text(databases: Databases, table: str) -> None:
    columns = columns_of(table)
    text = next(each for each in columns.values() if each.type in {"string", "stringOptions"})
    filters: list[dict[str, Any]] = [{"type": "string", "column": text.id, "operator": "=", "value": SQL}]
    filters += [
        {"type": "stringObject", "column": each.id, "key": SQL, "operator": "=", "value": SQL}
        for each in columns.values()
        if each.type == "stringObject"
    ]
    filters += [
        {"type": "categoryOptions", "column": each.id, "key": SQL, "operator": "any of", "value": [SQL]}
        for each in columns.values()
        if each.type == "categoryOptions"
    ]
    assert databases.read(tableName=table, filter=filters, searchQuery=SQL, project=SQL).rows == []
    assert SQL in refusal(databases, table, filter=[{**filters[0], "column": SQL}])
    assert databases.ids() == ["one"]


def test_an_unknown_key_matches_nothing_and_excludes_nothing(databases: Databases) -> None:
    absent: dict[str, Any] = {"type": "stringObject", "column": "metadata", "key": "nowhere", "value": "v"}
    assert databases.ids({**absent, "operator": "="}) == []
    assert databases.ids({**absent, "operator": "does not contain"}) == ["one"]
