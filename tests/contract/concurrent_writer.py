"""Writes to a table from another process at full speed: each round changes every row in one insert.

After round r there are the rows of `state(r)`, and no others: kept ones in version r, back and forth between two days;
ones that are deleted and come back by turns; one new row a round. So what a reader saw names the moment it saw it at.
"""

import itertools
import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.context import SpawnContext
from typing import Any

from sqlalchemy import create_engine, text

from tests.oracle.load import fill

KEPT = tuple(f"kept{number:02}" for number in range(40))
BY_TURNS = tuple(f"turn{number:02}" for number in range(10))
START = datetime(2026, 5, 10, 12, tzinfo=UTC)
AFTER_THE_CUTOFF = datetime(2026, 6, 2, tzinfo=UTC)

_CONTEXT: SpawnContext = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Target:
    """A table to write to: the names of its columns for id, version and time, and the values of the others.

    `owner` is a column that repeats the id, for rows that are aggregated by it.
    """

    table: str
    moment: str
    version: str
    rest: Mapping[str, Any]
    id: str = "id"
    slot: str | None = None
    owner: str | None = None

    def row(self, id_: str, number: int, *, moment: datetime | None = None, deleted: bool = False) -> dict[str, Any]:
        """A row as round `number` writes it: its position in the table's order differs between rounds."""
        moved = {} if self.slot is None else {self.slot: f"slot{number % 3}"}
        return {
            **self.rest,
            **moved,
            **({} if self.owner is None else {self.owner: id_}),
            "project_id": "p",
            self.id: id_,
            self.version: f"v{number}",
            self.moment: moment or START + timedelta(days=number % 2),
            "event_ts": START + timedelta(milliseconds=number),
            "is_deleted": int(deleted),
        }


def state(number: int) -> dict[str, str]:
    """The versions by id after a round."""
    there = KEPT if number % 2 else (*KEPT, *BY_TURNS)
    return {**dict.fromkeys(there, f"v{number}"), **{f"new{each}": f"v{each}" for each in range(number + 1)}}


@dataclass(frozen=True)
class Rounds:
    """The last round that began, and the last one that every reader sees; -1 before the first."""

    begun: Any
    done: Any


@contextmanager
def writing_to_clickhouse(url: str, database: str, target: Target) -> Iterator[Rounds]:
    """Write rounds while the block runs; the first is complete when it begins."""
    with _writing(_write_to_clickhouse, url, database, target) as rounds:
        yield rounds


@contextmanager
def writing_to_database(url: str, table: str) -> Iterator[Rounds]:
    """Write rounds, one transaction each, while the block runs; the first is complete when it begins."""
    with _writing(_write_to_database, url, table) as rounds:
        yield rounds


@contextmanager
def _writing(write: Any, *where: Any) -> Iterator[Rounds]:
    rounds = Rounds(_CONTEXT.Value("q", -1), _CONTEXT.Value("q", -1))
    ready = _CONTEXT.Event()
    writer = _CONTEXT.Process(target=write, args=(*where, rounds.begun, rounds.done, ready), daemon=True)
    writer.start()
    try:
        assert ready.wait(60), "the writer has not begun"
        yield rounds
        assert writer.is_alive(), "the writer has stopped"
    finally:
        writer.kill()
        writer.join()


def _write_to_clickhouse(url: str, database: str, target: Target, begun: Any, done: Any, ready: Any) -> None:
    nothing = create_engine("sqlite://")
    for number in itertools.count():
        rows = [target.row(id_, number) for id_ in KEPT]
        rows += [target.row(id_, number, deleted=bool(number % 2)) for id_ in BY_TURNS]
        rows.append(target.row(f"new{number}", number))
        begun.value = number
        fill(url, database, nothing, {target.table: rows})
        done.value = number
        ready.set()
        fill(url, database, nothing, {target.table: [target.row(f"late{number}", number, moment=AFTER_THE_CUTOFF)]})


COLUMNS = {
    "audit_logs": {
        "version": "action",
        "rest": {"org_id": "o", "resource_type": "trace", "resource_id": "r", "type": "USER", "updated_at": START},
    },
    "dataset_items": {
        "version": "source_trace_id",
        "rest": {
            "dataset_id": "d",
            "status": "ACTIVE",
            "updated_at": START,
            "valid_from": START,
            "is_deleted": False,
        },
    },
}


def _write_to_database(url: str, table: str, begun: Any, done: Any, ready: Any) -> None:
    engine = create_engine(url)
    version, rest = COLUMNS[table]["version"], COLUMNS[table]["rest"]
    assert isinstance(rest, dict)
    names = ["id", "project_id", "created_at", version, *rest]
    insert = text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})")

    def row(id_: str, number: int, moment: datetime = START) -> dict[str, Any]:
        row = {"id": id_, "project_id": "p", "created_at": moment, version: f"v{number}", **rest}
        return {name: _naive(value) for name, value in row.items()}

    for number in itertools.count():
        begun.value = number
        with engine.begin() as connection:
            if number == 0:
                connection.execute(insert, [row(id_, 0) for id_ in KEPT])
            connection.execute(text(f"UPDATE {table} SET {version} = :v WHERE id LIKE 'kept%'"), {"v": f"v{number}"})
            connection.execute(text(f"DELETE FROM {table} WHERE id LIKE 'turn%'"))
            if number % 2 == 0:
                connection.execute(insert, [row(id_, number) for id_ in BY_TURNS])
            late = row(f"late{number}", number, AFTER_THE_CUTOFF)
            connection.execute(insert, [row(f"new{number}", number), late])
        done.value = number
        ready.set()


def _naive(value: Any) -> Any:
    """Instants as databases store them: UTC without a zone."""
    return f"{value:%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime) else value
