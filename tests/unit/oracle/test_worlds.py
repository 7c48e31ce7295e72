import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine

from config.tables import langfuse
from embedded import schema
from embedded.stack import Stack
from tests.oracle import load, pools, raw, worlds
from tests.oracle.columns import columns_of
from tests.oracle.expected import EVENTS_BACKED, TABLES, expected, table_of
from tests.oracle.latest import IDENTITY
from tests.oracle.queries import queries
from tests.oracle.raw import World
from tests.oracle.values import Table

READ = [(name, events) for name in TABLES for events in ((False, True) if name in EVENTS_BACKED else (False,))]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Commands:
    """Sends the schema's statements to one database."""

    def __init__(self, url: str, database: str) -> None:
        self._url, self._database = url, database

    def command(self, cmd: str) -> object:
        return raw.ask(self._url, {"database": self._database}, cmd.encode())


@pytest.fixture(scope="module")
def database(embedded: Stack) -> Iterator[str]:
    name = f"oracle_{uuid.uuid4().hex[:12]}"
    raw.ask(embedded.clickhouse, {}, f"CREATE DATABASE {name}".encode())
    schema.create_clickhouse_tables(Commands(embedded.clickhouse, name))
    yield name
    raw.ask(embedded.clickhouse, {}, f"DROP DATABASE {name}".encode())


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path}/application.db"
        yield from _engine(address)
    else:
        with request.getfixturevalue("postgres").database() as postgres:
            yield from _engine(postgres.environment()["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"))


def _engine(address: str) -> Iterator[Engine]:
    engine = create_engine(address)
    langfuse.create_all(engine)
    yield engine
    engine.dispose()


def _as_read(value: Any) -> Any:
    """What a made value is when it comes back: bytes that are not UTF-8 as one U+FFFD, keys in any order.

    Decimals are told apart by the tests of cells.
    """
    if isinstance(value, load.Document):
        return _as_read(value.value)
    if isinstance(value, str):
        return raw.readable(value.encode(errors="surrogateescape"))
    if isinstance(value, list):
        return [_as_read(each) for each in value]
    if isinstance(value, dict):
        return {key: _as_read(each) for key, each in sorted(value.items())}
    return float(value) if isinstance(value, Decimal) else value


def _sorted(rows: Any, columns: list[str]) -> list[str]:
    return sorted(repr([_as_read(row[column]) for column in columns]) for row in rows)


def test_a_world_comes_back_as_it_was_made(embedded: Stack, database: str, engine: Engine) -> None:
    made = worlds.make(seed=1, size=12)

    load.fill(embedded.clickhouse, database, engine, made)
    found = raw.load(embedded.clickhouse, database, engine)
    load.empty(embedded.clickhouse, database, engine)

    for table, rows in made.items():
        columns = [column for column in rows[0] if column in found.tables[table][0]]
        assert _sorted(found.tables[table], columns) == _sorted(rows, columns), table


def test_the_server_sees_the_instants_that_were_read(embedded: Stack, database: str) -> None:
    made = {"events_full": worlds.make(seed=2, size=30)["events_full"]}
    load.fill(embedded.clickhouse, database, create_engine("sqlite://"), made)
    ticks = b"SELECT sum(toUnixTimestamp64Micro(start_time)), min(toUnixTimestamp64Micro(start_time)) FROM events_full"

    answer = raw.ask(embedded.clickhouse, {"database": database}, ticks)
    raw.ask(embedded.clickhouse, {"database": database}, b"TRUNCATE TABLE events_full")

    starts = [row["start_time"] for row in made["events_full"]]
    micros = [(start - EPOCH) // timedelta(microseconds=1) for start in starts]
    assert [int(number) for number in answer.split()] == [sum(micros), min(micros)]
    assert min(micros) < 0


@cache
def _world(seed: int) -> World:
    made = worlds.make(seed)
    tables = {
        table: [{name: _as_read(value) for name, value in row.items()} for row in rows] for table, rows in made.items()
    }
    return World(tables)


def test_projects_share_ids_and_versions_never_tie() -> None:
    world = _world(3)

    for table, identity in IDENTITY.items():
        by_project = [{row[identity] for row in world.of(table, project)} for project in pools.PROJECTS]
        assert not by_project[2] or set.intersection(*by_project), table
        stamps = [row["event_ts"] for row in world.tables[table]]
        assert len(stamps) == len(set(stamps)), table


@pytest.mark.parametrize(("name", "events"), READ)
def test_every_row_has_every_column_and_fact(name: str, events: bool) -> None:
    world = _world(4)
    for project in pools.PROJECTS:
        for item in table_of(world, project, name, pools.CUTOFF, use_events_table=events).items:
            assert tuple(item.cells) == _columns(world, name, events)
            assert columns_of(name).keys() - item.facts.keys() <= {"scores"}


def _columns(world: World, name: str, events: bool) -> tuple[str, ...]:
    return table_of(world, pools.PROJECTS[0], name, pools.CUTOFF, use_events_table=events).columns


@pytest.mark.parametrize(("name", "events"), READ)
def test_queries_hit_and_miss(name: str, events: bool) -> None:
    table = table_of(_world(5), pools.PROJECTS[0], name, pools.CUTOFF, use_events_table=events)
    sizes = _sizes(table, events=events)

    assert sum(size > 0 for size in sizes) > len(sizes) / 3
    assert sum(size < len(table.items) for size in sizes) > len(sizes) / 4


def _sizes(table: Table, *, events: bool) -> list[int]:
    sizes = []

    @settings(max_examples=40, database=None, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        sizes.append(len(expected(table, data.draw(queries(table, use_events_table=events))).rows))

    run()
    return sizes
