"""The queries that `waybill create` stores."""

import json
import re

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
