"""The queries that `waybill create` stores."""

import json
import re
from typing import Any

import pytest
from sqlalchemy import select

from config.tables import batch_exports
from runtime.migrations import migrate
from tests.services.stacks import Stack
from tests.support.daemons import waybill
from tests.support.databases import Databases

pytestmark = pytest.mark.slow


@pytest.fixture
def migrated(databases: Databases) -> Databases:
    """The databases, with Waybill's own tables too."""
    migrate(databases.engine)
    return databases


def test_filters_are_stored_as_langfuse_stores_them(stack: Stack, migrated: Databases) -> None:
    created = waybill(
        "create", "p", "traces", "--filter", "level=ERROR", "--filter", "scores.accuracy>=0.8", "--json",
        environment=stack.environment(),
    )  # fmt: skip

    assert created.returncode == 0, created.stderr
    with migrated.engine.connect() as connection:
        (query,) = connection.scalars(select(batch_exports.c.query)).all()
    assert query["filter"] == [
        {"type": "stringOptions", "column": "level", "operator": "any of", "value": ["ERROR"]},
        {"type": "numberObject", "column": "scores", "key": "accuracy", "operator": ">=", "value": 0.8},
    ]
    assert json.loads(created.stdout)["query"] == query


@pytest.mark.usefixtures("migrated")
def test_keys_that_are_unknown_are_named_by_create_show_and_explain(stack: Stack) -> None:
    odd = {"type": "string", "column": "userId", "operator": "=", "value": "x", "colour": "red"}
    command = ("create", "p", "traces", "--filter", json.dumps(odd))
    created = waybill(*command, environment=stack.environment())
    as_json = json.loads(waybill(*command, "--json", environment=stack.environment()).stdout)
    shown = waybill("show", "p", as_json["id"], "--json", environment=stack.environment())
    explained = waybill("explain", "p", as_json["id"], environment=stack.environment())

    assert re.search(r"ignored +filter\[0\]\.colour", created.stdout)
    assert as_json["ignored"] == json.loads(shown.stdout)["ignored"] == ["filter[0].colour"]
    assert (explained.returncode, "filter[0].colour" in explained.stderr) == (0, True)


def test_columns_are_stored_in_their_order_and_unknown_ones_refused(stack: Stack, migrated: Databases) -> None:
    named = waybill("create", "p", "traces", "--columns", 'name, id,"scores.a,b"', environment=stack.environment())
    unknown = waybill("create", "p", "traces", "--columns", "id,colour", environment=stack.environment())

    assert named.returncode == 0, named.stderr
    with migrated.engine.connect() as connection:
        (query,) = connection.scalars(select(batch_exports.c.query)).all()
    assert query["columns"] == ["name", "id", "scores.a,b"]
    assert (unknown.returncode, "no column 'colour'" in unknown.stderr) == (2, True)


def test_no_export_is_created_for_an_invalid_filter(stack: Stack, migrated: Databases) -> None:
    refused = waybill("create", "p", "traces", "--filter", "colour=red", environment=stack.environment())
    unsorted = waybill("create", "p", "traces", "--order-by", "tags", environment=stack.environment())

    assert (refused.returncode, "colour" in refused.stderr) == (2, True)
    assert (unsorted.returncode, "tags" in unsorted.stderr) == (2, True)
    with migrated.engine.connect() as connection:
        assert connection.scalars(select(batch_exports.c.id)).all() == []


def test_a_query_of_the_events_table_is_checked_against_its_columns(stack: Stack, migrated: Databases) -> None:
    created = waybill(
        "create", "p", "observations", "--events", "--filter", "positionInTrace=root", "--json",
        environment=stack.environment(),
    )  # fmt: skip
    refused = waybill("create", "p", "scores", "--events", "--filter", "colour=red", environment=stack.environment())

    assert created.returncode == 0, created.stderr
    assert json.loads(created.stdout)["query"]["useEventsTable"] is True
    assert (refused.returncode, "colour" in refused.stderr) == (2, True)
    with migrated.engine.connect() as connection:
        assert len(connection.scalars(select(batch_exports.c.id)).all()) == 1


def test_a_second_run_for_the_same_window_is_the_same_export(stack: Stack, migrated: Databases) -> None:
    def create(table: str, *window: str) -> tuple[Any, str]:
        done = waybill("create", "p", table, *window, "--json", environment=stack.environment())
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    day = ("--from", "2026-09-01", "--to", "2026-09-02")
    first, first_said = create("traces", *day)
    second, second_said = create("traces", "--last", "1d", "--to", "2026-09-02")
    others = [create("traces", "--from", "2026-09-01", "--to", "2026-09-03")[0], create("scores", *day)[0]]
    cancelled = waybill("cancel", "p", first["id"], environment=stack.environment())
    third, third_said = create("traces", *day)

    assert (first["id"], first["query"]) == (second["id"], second["query"])
    assert first["name"] == "2026-09-01T00:00:00Z to 2026-09-02T00:00:00Z - traces as CSV"
    assert [each["value"] for each in first["query"]["filter"]] == ["2026-09-01T00:00:00Z", "2026-09-02T00:00:00Z"]
    assert "exists already" not in first_said
    assert "exists already; it is QUEUED" in second_said
    assert cancelled.returncode == 0
    assert (third["id"], third["status"]) == (first["id"], "CANCELLED")
    assert f"it is CANCELLED. To queue it again: waybill retry p {first['id']}" in third_said
    with migrated.engine.connect() as connection:
        stored = set(connection.scalars(select(batch_exports.c.id)).all())
    assert stored == {first["id"], *(each["id"] for each in others)}
    assert len(stored) == 3


def test_an_empty_window_is_refused(stack: Stack, migrated: Databases) -> None:
    refused = waybill("create", "p", "--from", "2026-09-02", "--to", "2026-09-01", environment=stack.environment())

    assert (refused.returncode, "it is empty" in refused.stderr) == (2, True)
    with migrated.engine.connect() as connection:
        assert connection.scalars(select(batch_exports.c.id)).all() == []
