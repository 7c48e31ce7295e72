"""What `waybill explain` shows: all that is sent for an export, with no value of the request in its text."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert

from cli.explain import Statement, sent
from cli.filters import ALL_TABLES
from config.tables import audit_logs, batch_exports
from pipeline.spec import read_spec
from tests.contract.reading import CUTOFF, World, world
from tests.e2e.daemons import waybill
from tests.services.stacks import Stack

MARK = "zq'`\"\\{x:String}%(y)s;--"
ASKED = "zq, asked for"
SOURCES = re.compile(r"\b(?:FROM|JOIN)\s+`?\"?(\w+)", re.IGNORECASE)
SHARED = {"users", "models", "prices", "pricing_tiers"}


def statements(made: World, table: str) -> list[Statement]:
    column = next(each for each in ALL_TABLES[table].filterables if each.type in {"string", "stringOptions"})
    query: dict[str, Any] = {
        "tableName": table,
        "filter": [{"type": "string", "column": column.id, "operator": "does not contain", "value": ASKED}],
        "orderBy": {"column": column.id, "order": "DESC"},
    }
    if "id" in ALL_TABLES[table].searched:
        query |= {"searchQuery": MARK}
    spec = read_spec(
        project_id=MARK, export_id="e", attempt=1, created_at=CUTOFF, query=query, format="JSONL", row_limit=4321
    )
    return sent(spec, made.sources)


@pytest.mark.parametrize("table", ALL_TABLES)
def test_every_statement_is_bound_to_the_project_and_holds_no_value(stack: Stack, table: str) -> None:
    made = world(stack.environment())

    shown = statements(made, table)

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
    made.client.close()
    made.database.dispose()


def test_the_command_shows_text_types_and_values_apart(stack: Stack) -> None:
    made = world(stack.environment())
    now = datetime.now(UTC)
    row = {"id": "a", "project_id": "p", "org_id": "o", "resource_type": "r", "resource_id": "x", "action": "create"}
    query = {"tableName": "audit_logs", "filter": [], "searchQuery": "needle"}
    export = {"id": "e", "project_id": "p", "user_id": "", "name": "n", "status": "QUEUED", "query": query}
    with made.database.begin() as connection:
        connection.execute(insert(audit_logs).values(row))
        connection.execute(insert(batch_exports).values(**export, format="CSV", created_at=now, updated_at=now))

    done = waybill("migrate", environment=stack.environment())
    assert done.returncode == 0, done.stderr
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
    made.client.close()
    made.database.dispose()
