import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from clickhouse_connect import get_client
from sqlalchemy import Engine, create_engine, func, select

from config import tables
from embedded import sample
from embedded.sample import awkward
from embedded.sample.sql import Plan
from embedded.schema import create_langfuse_schema
from embedded.stack import Stack

ROWS = 200
TABLES = ("traces", "observations", "scores", "events_full", "events_core", "dataset_run_items_rmt")
LATEST = "(SELECT * FROM {table} WHERE project_id = '{project}' ORDER BY event_ts DESC LIMIT 1 BY {key})"


@pytest.fixture(scope="module")
def filled(embedded: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Engine]]:
    """A client and an engine of filled databases, which the tests only read."""
    address = urlsplit(embedded.clickhouse)
    client = get_client(host=address.hostname, port=address.port, autogenerate_session_id=False)
    client.command("CREATE DATABASE filled")
    client.database = "filled"
    engine = create_engine(f"sqlite:///{tmp_path_factory.mktemp('sample')}/sample.sqlite")
    create_langfuse_schema(client, engine)
    sample.fill(client, engine, rows=ROWS)
    yield client, engine
    engine.dispose()
    client.command("DROP DATABASE filled")
    client.close()


def latest(table: str, project: str = "demo", key: str = "id") -> str:
    return LATEST.format(table=table, project=project, key=key)


def rows(client: Any, sql: str) -> Any:
    return client.query(sql).result_rows


def test_creating_the_schema_again_changes_nothing(client: Any, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/sample.sqlite")
    for _ in range(2):
        create_langfuse_schema(client, engine)
    made = {name for (name,) in rows(client, "SHOW TABLES")}
    assert made == {*TABLES, "events_core_mv"}
    engine.dispose()


def test_every_project_has_the_same_live_traces_with_different_content(filled: Any) -> None:
    client, _ = filled
    for project in sample.PROJECTS:
        live = f"SELECT count(), min(id), max(id), countIf(is_deleted) FROM {latest('traces', project)}"
        assert rows(client, f"{live} WHERE NOT is_deleted") == [(ROWS, "trace-0000000", f"trace-{ROWS - 1:07}", 0)]
    inputs = "SELECT uniqExact(input) FROM traces WHERE id = 'trace-0000150'"
    assert rows(client, inputs) == [(2,)]


def test_traces_have_outdated_versions_on_other_days_and_deleted_ones(filled: Any) -> None:
    client, _ = filled
    days = "SELECT id, uniqExact(toDate(timestamp)) AS days FROM traces WHERE project_id = 'demo' GROUP BY id"
    assert rows(client, f"SELECT count() FROM ({days}) WHERE days > 1 AND id LIKE 'trace-%'") == [(8,)]
    assert rows(client, f"SELECT count() FROM {latest('traces')} WHERE is_deleted") == [(4,)]
    assert rows(client, f"SELECT countIf(output = 'an outdated version') FROM {latest('traces')}") == [(0,)]
    assert rows(client, "SELECT min(timestamp) < toDateTime64('1970-01-01', 3) FROM traces") == [(1,)]


@pytest.mark.parametrize("column", ["input", "output"])
def test_every_awkward_text_is_in_the_traces_unchanged(filled: Any, column: str) -> None:
    client, _ = filled
    present = {value for (value,) in rows(client, f"SELECT {column} FROM {latest('traces')} WHERE NOT is_deleted")}
    assert {None, *awkward.TEXTS, *awkward.JSON_TEXTS} <= present


def test_traces_have_awkward_names_tags_and_metadata(filled: Any) -> None:
    client, _ = filled
    found = rows(client, f"SELECT name, tags, metadata FROM {latest('traces')}")
    assert set(awkward.NAMES) <= {name for name, _, _ in found}
    assert {tuple(tags) for _, tags, _ in found} >= set(awkward.TAGS)
    assert all(metadata in [each for _, _, each in found] for metadata in awkward.METADATA)


def test_scores_have_every_type_and_several_values_of_a_name(filled: Any) -> None:
    client, _ = filled
    types = {kind for (kind,) in rows(client, "SELECT DISTINCT data_type FROM scores")}
    assert types == {"NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"}
    names = {name for (name,) in rows(client, "SELECT DISTINCT name FROM scores")}
    assert {"id", "input", "10", 'a,b"c', "😀", "mixed"} <= names
    twice = f"SELECT trace_id, name FROM {latest('scores')} WHERE NOT is_deleted GROUP BY 1, 2 HAVING count() > 1"
    assert len(rows(client, twice)) > ROWS // 20
    linked = "countIf(observation_id != ''), countIf(session_id != ''), countIf(dataset_run_id != '')"
    assert all(count > 0 for count in rows(client, f"SELECT {linked} FROM scores")[0])
    assert rows(client, f"SELECT countIf(is_deleted), countIf(value = 1000) FROM {latest('scores')}") == [(4, 0)]


def test_scores_and_observations_refer_to_existing_traces(filled: Any) -> None:
    client, _ = filled
    for table in ("scores", "observations", "events_full", "dataset_run_items_rmt"):
        lost = f"SELECT count() FROM {table} WHERE trace_id != '' AND (project_id, trace_id) NOT IN"
        assert rows(client, f"{lost} (SELECT project_id, id FROM traces)") == [(0,)]


def test_core_events_are_full_events_with_shortened_text(filled: Any) -> None:
    client, _ = filled
    key = "project_id, span_id"
    counted = "SELECT count(), max(lengthUTF8(input)) FROM {}"
    full, long = rows(client, counted.format(latest("events_full", key=key)))[0]
    core, short = rows(client, counted.format(latest("events_core", key=key)))[0]
    assert full == core == ROWS + 4
    assert short == 200 < long


def test_the_database_is_filled(filled: Any) -> None:
    _, engine = filled
    with engine.connect() as connection:
        counts = {
            table.name: connection.scalar(select(func.count()).select_from(table))
            for table in tables.langfuse.sorted_tables
        }
        commented = connection.scalar(select(func.count()).where(tables.comments.c.object_id == "trace-0000000"))
    empty = {name for name, count in counts.items() if not count}
    assert empty == {"batch_exports"}
    assert counts["projects"] == 2
    assert commented


def test_the_same_seed_generates_the_same_data_and_another_one_does_not(
    connect: Any, database: str, client: Any
) -> None:
    del client

    def fingerprint(seed: int) -> str:
        name = f"{database}_{seed}"
        server = connect()
        server.command(f"CREATE DATABASE {name}")
        try:
            mine = connect(database=name)
            create_langfuse_schema(mine, create_engine("sqlite://"))
            for statement in sample.statements(Plan("demo", 0, 50, 1000, seed)):
                mine.command(statement)
            content = mine.raw_query(f"SELECT * FROM {latest('traces')} ORDER BY id", fmt="JSONEachRow")
        finally:
            server.command(f"DROP DATABASE {name}")
        return hashlib.sha256(content).hexdigest()

    first = fingerprint(1)
    assert fingerprint(1) == first
    assert fingerprint(2) != first


@pytest.mark.parametrize("payload_bytes", [100, 1000, 20_000])
def test_the_payload_is_about_as_large_as_requested(client: Any, payload_bytes: int) -> None:
    create_langfuse_schema(client, create_engine("sqlite://"))
    for statement in sample.statements(Plan("demo", 0, 990, payload_bytes, 1)):
        if statement.startswith("INSERT INTO traces"):
            client.command(statement)
    typical = rows(
        client, f"SELECT avg(length(input) + length(output)) FROM {latest('traces')} WHERE id > 'trace-0000100'"
    )
    assert 0.7 * payload_bytes < typical[0][0] < 1.2 * payload_bytes + 300
