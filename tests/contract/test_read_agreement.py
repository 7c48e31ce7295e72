"""Files are those that the oracle expects: of every table, with random rows and random queries.

`CASES=5000 SEED=31 pytest tests/contract/test_read_agreement.py` asks that many queries of each table, in the worlds of
that seed; a failure names the seed. The variants with embedded and with real services have different worlds, and so
different queries.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from pipeline.types import FORMATS
from tests.oracle import worlds
from tests.oracle.pools import PROJECTS
from tests.oracle.queries import columns, queries
from tests.services.stacks import Embedded, Servers
from tests.support.agreement import Filled, cached_lookups, fill_databases
from tests.support.tables import READINGS

pytestmark = pytest.mark.clickhouse

SEED = int(os.environ.get("SEED", "7"))
SECONDS_A_CASE = 5
"""The longest that a case takes on average, on a machine that does other work."""

every_table = pytest.mark.parametrize(
    ("table", "events"), READINGS, ids=[f"{table}-of-events" if events else table for table, events in READINGS]
)


@pytest.fixture(scope="module")
def rows(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with (
        servers.stack(tmp_path_factory.mktemp("agreement")) as stack,
        fill_databases(stack, worlds.make(2 * SEED + isinstance(servers, Embedded))) as filled,
    ):
        yield filled


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("project", PROJECTS)
@every_table
def test_a_file_of_a_whole_table_is_the_expected_one(
    rows: Filled, table: str, events: bool, project: str, form: str
) -> None:
    query = {"tableName": table, "filter": None, "orderBy": None, "useEventsTable": events}
    assert rows.problems(project, query, form) == []


@pytest.fixture(scope="module")
def many(rows: Filled) -> Iterator[Filled]:
    with cached_lookups():
        yield rows


for_queries = settings(
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("world", [SEED])
@pytest.mark.timeout(300 + SECONDS_A_CASE * settings().max_examples)
@every_table
@seed(SEED)
@for_queries
@given(data=st.data())
def test_the_rows_of_a_query_are_the_expected_ones(
    many: Filled, table: str, events: bool, world: int, data: st.DataObject
) -> None:
    project = data.draw(st.sampled_from(PROJECTS))
    query = data.draw(queries(many.table(project, table, events=events), use_events_table=events))
    assert many.problems(project, query, "JSONL") == [], f"in the worlds of SEED={world}"


@pytest.mark.timeout(300 + 2 * SECONDS_A_CASE * settings().max_examples)
@every_table
@seed(SEED)
@settings(for_queries, max_examples=max(settings().max_examples // 5, 5))  # each reads two files
@given(data=st.data())
def test_a_file_of_named_columns_is_the_whole_file_without_the_others(
    many: Filled, table: str, events: bool, data: st.DataObject
) -> None:
    project, form = data.draw(st.sampled_from(PROJECTS)), data.draw(st.sampled_from(sorted(FORMATS)))
    everything = many.table(project, table, events=events)
    query = data.draw(queries(everything, use_events_table=events))
    named = {**query, "columns": data.draw(columns(everything))}
    assert many.projection_problems(project, query, named, form) == [], f"in the worlds of SEED={SEED}"
