"""`waybill explain` shows every statement of an export, without values of the request in the SQL text."""

import itertools
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert

from cli.explain import Statement, list_statements
from cli.tables import OPERATORS
from config.tables import audit_logs, batch_exports
from embedded.sample import fill
from pipeline.spec import read_spec
from pipeline.tables import TABLES, TableDeclaration
from pipeline.tables.columns import ACCEPTED_FILTERS, Filterable
from pipeline.types import OutputOptions
from runtime.migrations import migrate
from tests.services.stacks import Stack
from tests.support.daemons import waybill
from tests.support.databases import CUTOFF, Databases
from tests.support.tables import EVENT_VARIANTS

pytestmark = pytest.mark.clickhouse

MARK = "zq'`\"\\{x:String}%(y)s;--"
ASKED = "zq, asked for"
SOURCES = re.compile(r"\b(?:FROM|JOIN)\s+`?\"?(\w+)", re.IGNORECASE)
EVERY: dict[str, TableDeclaration] = {
    **TABLES,
    **{f"{name}-of-events": table for name, table in EVENT_VARIANTS.items()},
}
SHARED = {"users", "models", "prices", "pricing_tiers"}


def statements(databases: Databases, table: str) -> list[Statement]:
    column = next(each for each in TABLES[table].filterables if each.type in {"string", "stringOptions"})
    query: dict[str, Any] = {
        "tableName": table,
        "filter": [{"type": "string", "column": column.id, "operator": "does not contain", "value": ASKED}],
        "orderBy": {"column": column.id, "order": "DESC"},
    }
    if "id" in TABLES[table].searched:
        query |= {"searchQuery": MARK}
    spec = read_spec(
        project_id=MARK,
        export_id="e",
        attempt=1,
        created_at=CUTOFF,
        query=query,
        format="JSONL",
        output=OutputOptions(row_limit=4321),
    )
    return list_statements(spec, databases.sources)


@pytest.mark.parametrize("table", TABLES)
def test_every_statement_is_bound_to_the_project_and_holds_no_value(databases: Databases, table: str) -> None:
    shown = statements(databases, table)

    assert shown
    for each in shown:
        assert "zq" not in each.sql
        assert "4321" not in each.sql
        assert "2026" not in each.sql
        assert set(each.types) == set(each.values)
        read = set(SOURCES.findall(each.sql)) - SHARED
        if read:
            assert "project_id" in each.sql
            assert MARK in each.values.values()
    assert any(ASKED in each.values.values() for each in shown)


@pytest.mark.parametrize("table", TABLES)
def test_statements_that_look_up_rows_are_shown_with_their_parameters(databases: Databases, table: str) -> None:
    fill(databases.client, databases.engine, rows=20)
    query = {"tableName": table, "filter": []}
    spec = read_spec(project_id="demo", export_id="e", attempt=1, created_at=CUTOFF, query=query, format="JSONL")

    shown = list_statements(spec, databases.sources)

    for each in shown:
        assert set(each.types) == set(each.values)
    if table == "observations":
        assert any({"input", "output", "total"} <= set(map(str, each.values.values())) for each in shown)


VALUES: dict[str, dict[str, Any]] = {
    "datetime": {"value": "2033-07-05T04:03:02.001Z"},
    "string": {"value": ASKED},
    "number": {"value": 987654.125},
    "stringOptions": {"value": [ASKED, MARK]},
    "categoryOptions": {"value": [ASKED, MARK], "key": MARK},
    "arrayOptions": {"value": [ASKED, MARK]},
    "stringObject": {"value": ASKED, "key": MARK},
    "numberObject": {"value": 987654.125, "key": MARK},
    "booleanObject": {"value": True, "key": MARK},
    "boolean": {"value": True},
    "null": {"value": ""},
    "positionInTrace": {"key": "nthFromEnd", "value": 98765},
}
AT_ONCE = 8


def every_filter(table: TableDeclaration) -> list[dict[str, Any]]:
    """Filters of each type on each column that accepts it, with the operators in turn."""
    turns = {kind: itertools.cycle(operators) for kind, operators in OPERATORS.items()}
    filters = []
    for column in table.filterables:
        for kind in sorted(ACCEPTED_FILTERS[column.type]):
            operator = next(turns[kind])
            if operator == "matches" and not (isinstance(column, Filterable) and column.full_text):
                operator = "contains"
            filters.append({"type": kind, "column": column.id, "operator": operator, **VALUES[kind]})
    return filters


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("table", EVERY, ids=list(EVERY))
def test_no_filter_of_any_type_puts_its_value_into_a_statement(databases: Databases, table: str) -> None:
    filters = every_filter(EVERY[table])
    query = {"tableName": EVERY[table].name, "useEventsTable": table.endswith("-of-events")}

    for start in range(0, len(filters), AT_ONCE):
        some = {**query, "filter": filters[start : start + AT_ONCE]}
        spec = read_spec(project_id=MARK, export_id="e", attempt=1, created_at=CUTOFF, query=some, format="JSONL")
        shown = list_statements(spec, databases.sources)
        assert shown
        for each in shown:
            assert not {value for value in ("zq", "2033", "987654", "98765", "2026") if value in each.sql}, some
            assert "project_id" in each.sql or not set(SOURCES.findall(each.sql)) - SHARED
            if "project_id" in each.sql:
                assert MARK in each.values.values()


@pytest.mark.slow
def test_the_command_shows_text_types_and_values_apart(databases: Databases, stack: Stack) -> None:
    now = datetime.now(UTC)
    row = {"id": "a", "project_id": "p", "org_id": "o", "resource_type": "r", "resource_id": "x", "action": "create"}
    query = {"tableName": "audit_logs", "filter": [], "searchQuery": "needle"}
    export = {"id": "e", "project_id": "p", "user_id": "", "name": "n", "status": "QUEUED", "query": query}
    with databases.engine.begin() as connection:
        connection.execute(insert(audit_logs).values(row))
        connection.execute(insert(batch_exports).values(**export, format="CSV", created_at=now, updated_at=now))

    migrate(databases.engine)
    as_json = waybill("explain", "p", "e", "--json", environment=stack.environment())
    for_people = waybill("explain", "p", "e", environment=stack.environment())
    missing = waybill("explain", "p", "nowhere", environment=stack.environment())

    assert as_json.returncode == for_people.returncode == 0, as_json.stderr
    shown = json.loads(as_json.stdout)
    main = shown[-1]
    assert "audit_logs" in main["sql"]
    assert "needle" not in main["sql"]
    assert "needle" in main["values"].values()
    assert main["parameters"].keys() == main["values"].keys()
    assert "'needle'" in for_people.stdout
    assert (missing.returncode, "nowhere" in missing.stderr) == (1, True)
