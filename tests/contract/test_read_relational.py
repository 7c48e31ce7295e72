"""Reading `dataset_items` and `audit_logs` with a cursor, from SQLite and from Postgres, against the oracle."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, text

from config.errors import Cancelled, Rejected, Unavailable
from config.tables import langfuse
from pipeline.encode import ENCODERS
from pipeline.progress import Progress
from pipeline.read import open_table
from pipeline.read.connections import ClickHouse, Sources
from pipeline.spec import ExportSpec, read_spec
from pipeline.types import FORMATS, OutputOptions
from tests.oracle import expected, load, pools, queries, raw, worlds
from tests.oracle.compare import differences
from tests.oracle.values import Cell, Table
from tests.services.postgres import Postgres
from tests.support.tables import DATABASE_TABLES

NOWHERE = ClickHouse("http://127.0.0.1:1")
# Langfuse's own schema has enums where the copy for tests has text.
ENUMS = (
    "CREATE TYPE status AS ENUM ('ACTIVE', 'ARCHIVED')",
    "ALTER TABLE dataset_items ALTER status DROP DEFAULT, ALTER status TYPE status USING status::status",
    "CREATE TYPE record_type AS ENUM ('USER', 'API_KEY')",
    "ALTER TABLE audit_logs ALTER type DROP DEFAULT, ALTER type TYPE record_type USING type::record_type",
    "ALTER TABLE dataset_items ALTER created_at TYPE timestamp(3), ALTER valid_from TYPE timestamp(3)",
)


@dataclass(frozen=True)
class Filled:
    """A database with random rows."""

    database: Engine
    tables: dict[tuple[str, str], Table]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002 (Hypothesis calls it so)
        """Print the names: a failure that prints all rows is reported as a flaky strategy instead."""
        printer.text(f"Filled({self.database.dialect.name}, {sorted(self.tables)})")

    @property
    def sources(self) -> Sources:
        return Sources(NOWHERE, self.database)

    def rows(self, name: str) -> list[Mapping[str, Cell]]:
        """All rows of a project in the default order of the table."""
        query = {"tableName": name, "filter": None, "orderBy": None}
        return list(expected.expected(self.tables[name, "p-one"], query).rows)

    def spec(self, project: str, form: str, query: dict[str, Any], limit: int | None = None) -> ExportSpec:
        return read_spec(
            project_id=project,
            export_id="e",
            attempt=1,
            created_at=pools.CUTOFF,
            query=query,
            format=form,
            output=OutputOptions(row_limit=limit),
        )

    def export(self, project: str, form: str, query: dict[str, Any]) -> bytes:
        spec = self.spec(project, form, query)
        with open_table(spec, self.sources, Progress()) as table:
            encoded = ENCODERS[form](table.columns, table.enrich(table.batches), spec.encoding)
            return b"".join(bytes(chunk) for chunk in encoded)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "sqlite":
        yield create_engine(f"sqlite:///{tmp_path_factory.mktemp('relational')}/waybill.db")
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as made:
        engine = create_engine(made.url.replace("postgresql:", "postgresql+psycopg:"))
        yield engine
        engine.dispose()


@pytest.fixture(scope="module")
def filled(database: Engine) -> Filled:
    langfuse.create_all(database)
    if database.dialect.name == "postgresql":
        with database.begin() as connection:
            for statement in ENUMS:
                connection.execute(text(statement))
    rows = worlds.make(11)
    load.fill("", "", database, {name: rows[name] for name in raw.SQL_TABLES if name in rows})
    world = raw.World({name: raw._sql_rows(database, name) for name in raw.SQL_TABLES})
    return Filled(
        database,
        {
            (name, project): expected.table_of(world, project, name, pools.CUTOFF)
            for name in DATABASE_TABLES
            for project in pools.PROJECTS
        },
    )


@pytest.mark.parametrize("name", DATABASE_TABLES)
@pytest.mark.parametrize("form", FORMATS)
def test_a_file_holds_the_project_s_rows_and_no_others(filled: Filled, name: str, form: str) -> None:
    for project in pools.PROJECTS:
        query = {"tableName": name, "filter": None, "orderBy": None}
        wanted = expected.expected(filled.tables[name, project], query)
        assert wanted.rows
        assert differences(wanted, filled.export(project, form, query), form) == []


@pytest.mark.parametrize("name", DATABASE_TABLES)
@settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_the_rows_match_the_query(filled: Filled, name: str, data: st.DataObject) -> None:
    table = filled.tables[name, pools.PROJECTS[0]]
    query = data.draw(queries.queries(table))
    found = filled.export(pools.PROJECTS[0], "JSONL", query)
    assert differences(expected.expected(table, query), found, "JSONL") == []


def test_a_row_limit_truncates_and_is_reported(filled: Filled) -> None:
    query = {"tableName": "audit_logs", "filter": None, "orderBy": None}
    whole = [row["id"] for row in filled.rows("audit_logs")]

    for limit, truncated in ((2, True), (len(whole), False), (len(whole) + 1, False)):
        with open_table(filled.spec("p-one", "CSV", query, limit), filled.sources, Progress()) as table:
            read = [each for batch in table.batches for each in batch.column("id").to_pylist()]
            assert (read, table.truncated) == (whole[:limit], truncated)


def test_two_exports_of_one_query_are_the_same_bytes(filled: Filled) -> None:
    query = {"tableName": "dataset_items", "orderBy": {"column": "status", "order": "DESC"}}

    assert filled.export("p-one", "CSV", query) == filled.export("p-one", "CSV", query)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"filter": [{"type": "string", "column": "before", "operator": "=", "value": "x"}]}, ["'before'", "userId"]),
        ({"filter": [{"type": "number", "column": "action", "operator": "=", "value": 1}]}, ["'action'", "string"]),
        ({"filter": [{"type": "string", "column": "action", "operator": "matches", "value": "x"}]}, ["matches"]),
        ({"orderBy": {"column": "after", "order": "ASC"}}, ["'after'", "createdAt"]),
        ({"searchQuery": "x", "searchType": ["input"]}, ["'input'", "content"]),
    ],
)
def test_an_invalid_query_is_refused_when_the_table_is_opened(
    filled: Filled, query: dict[str, Any], named: list[str]
) -> None:
    with (
        pytest.raises(Rejected) as refused,
        open_table(filled.spec("p-one", "CSV", {"tableName": "audit_logs", **query}), filled.sources, Progress()),
    ):
        pass
    assert all(name in str(refused.value) for name in named)


@pytest.mark.parametrize("operator", ["=", "contains", "does not contain", "starts with", "ends with"])
def test_a_value_that_postgres_can_t_store_matches_no_row(filled: Filled, operator: str) -> None:
    asked = {"type": "string", "column": "action", "operator": operator, "value": "a\x00b"}
    query = {"tableName": "audit_logs", "filter": [asked]}
    everything = len(filled.rows("audit_logs"))

    found = filled.export("p-one", "JSONL", query).splitlines()
    searched = filled.export("p-one", "JSONL", {"tableName": "audit_logs", "searchQuery": "a\x00b"})

    assert len(found) == (everything if operator == "does not contain" else 0)
    assert searched == b""


def test_a_list_may_be_longer_than_a_statements_parameters(filled: Filled) -> None:
    values = [f"no such id {number}" for number in range(100_000)]
    asked = {"type": "stringOptions", "column": "resourceId", "operator": "none of", "value": values}

    found = filled.export("p-one", "JSONL", {"tableName": "audit_logs", "filter": [asked]})

    assert len(found.splitlines()) == len(filled.rows("audit_logs"))


def test_a_stopped_export_interrupts_its_query(filled: Filled) -> None:
    progress = Progress()
    progress.stop()
    spec = filled.spec("p-one", "CSV", {"tableName": "audit_logs"})

    with pytest.raises(Cancelled), open_table(spec, filled.sources, progress) as table:
        next(table.batches)


def test_a_missing_database_is_unavailable_to_a_reader(filled: Filled) -> None:
    gone = Sources(NOWHERE, create_engine("postgresql+psycopg://waybill@127.0.0.1:1/none?connect_timeout=5"))
    spec = filled.spec("p-one", "CSV", {"tableName": "audit_logs"})

    with pytest.raises(Unavailable), open_table(spec, gone, Progress()) as table:
        next(table.batches)
