"""The Parquet files of one table can be read together: their columns are distinct and have the same types."""

import io
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedded.sample import fill
from embedded.stack import Stack as Parts
from pipeline.encode import ENCODERS
from pipeline.progress import Progress
from pipeline.read import open_table
from pipeline.spec import read_spec
from pipeline.tables import TABLES
from tests.services.stacks import Embedded
from tests.support.databases import CUTOFF, MAY, Databases, open_databases
from tests.support.tables import READINGS, drop_later_columns

pytestmark = pytest.mark.clickhouse

ROWS = 40
IDS = {"dataset_run_items": "datasetRunId", "audit_logs": "resourceId"}
"""The columns to filter by in tables where `id` can't be filtered by."""
FROM_EVENTS = ("observations", "scores", "sessions")


@pytest.fixture(scope="module")
def sample(embedded: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Databases with rows in every table of the project `demo`."""
    folder = tmp_path_factory.mktemp("sample")
    with Embedded(embedded).stack(folder) as stack, open_databases(stack.databases()) as opened:
        fill(opened.client, opened.engine, rows=ROWS)
        yield opened


def read(databases: Databases, project: str, **query: object) -> pa.Table:
    """Export a project, and read the file."""
    asked = {"filter": [], "orderBy": None, **query}
    spec = read_spec(project_id=project, export_id="e", attempt=1, created_at=CUTOFF, query=asked, format="PARQUET")
    with open_table(spec, databases.sources, Progress()) as table:
        chunks = ENCODERS["PARQUET"](table.columns, table.enrich(table.batches), spec.encoding)
        return pq.read_table(io.BytesIO(b"".join(bytes(each) for each in chunks)))


@pytest.mark.parametrize("name", TABLES)
def test_a_file_without_rows_has_the_columns_of_one_with_rows(sample: Databases, name: str) -> None:
    nothing = {"type": "string", "column": IDS.get(name, "id"), "operator": "=", "value": "nothing has this id"}

    filled, empty = (read(sample, "demo", tableName=name, filter=filters) for filters in ([], [nothing]))

    assert filled.num_rows > 0 == empty.num_rows
    assert filled.schema == empty.schema


@pytest.mark.parametrize("name", FROM_EVENTS)
def test_the_source_of_the_rows_does_not_change_the_types(sample: Databases, name: str) -> None:
    of_tables, of_events = (read(sample, "nobody", tableName=name, useEventsTable=events) for events in (False, True))

    types = [dict(zip(each.schema.names, each.schema.types, strict=True)) for each in (of_tables, of_events)]
    assert types[0] == types[1]


@pytest.mark.parametrize(("table", "events"), READINGS)
def test_columns_that_an_older_schema_lacks_have_the_types_that_they_have_later(
    databases: Databases, table: str, events: bool
) -> None:
    newer = read(databases, "p", tableName=table, useEventsTable=events)
    drop_later_columns(databases.client)
    # Open connections remember the columns.
    sources = replace(databases.sources, clickhouse=replace(databases.sources.clickhouse))
    older = read(replace(databases, sources=sources), "p", tableName=table, useEventsTable=events)

    assert [str(each) for each in older.schema] == [str(each) for each in newer.schema]


def test_scores_whose_names_differ_only_in_case_have_columns_that_readers_tell_apart(databases: Databases) -> None:
    databases.traces({})
    for value, name in enumerate(("Accuracy", "accuracy", "ID", "scores.id")):
        databases.scores({"name": name, "value": value, "timestamp": MAY, "id": name})

    table = read(databases, "p", tableName="traces")

    names = table.schema.names
    assert len({each.casefold() for each in names}) == len(names)
    found = {each: table.column(each).to_pylist() for each in names[-4:]}
    assert found == {"Accuracy": [[0.0]], "scores.scores.ID": [[2.0]], "scores.accuracy": [[1.0]], "scores.id": [[3.0]]}
