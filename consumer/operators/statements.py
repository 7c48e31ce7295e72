"""Reads what the operators' page shows: a few short statements, whose cost does not grow with the tables."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, FromClause, Select, and_, case, func, literal_column, select
from sqlalchemy import Text as AnyText

from config.events import ExportFinished, Malformed, Status, read_finished
from config.labels import Outcome
from config.tables import batch_exports, notices, outbox, runs

QUEUE_LIMIT = 100
RUNNING_LIMIT = 200
ENDINGS_LIMIT = 50
NOTICES_LIMIT = 50
LATEST_RUNS = 500
"""How many ended attempts are searched for endings: after a long outage, most of them are retries."""

LATEST_EVENTS = 100
NAME_CHARACTERS = 200
REASON_CHARACTERS = 1000
ID_CHARACTERS = 512
WORD_CHARACTERS = 100
QUERY_BYTES = 100_000
"""A stored query that is longer is not opened to read the name of its table."""

ENDED = (Outcome.COMPLETED, Outcome.REJECTED, Outcome.FAILED, Outcome.CANCELLED)
# Literals and not parameters, so that every plan can use the index of open notices.
_IS_OPEN = notices.c.state.in_([literal_column("'pending'"), literal_column("'sending'")])

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Exports:
    """What the databases say about exports and notices; totals count those that are not listed, too."""

    queued_total: int
    queued: list[Row]
    running_total: int
    running: list[Row]
    endings: list[Row]
    notices_total: int
    notices: list[Row]


def read_exports(connection: Connection) -> Exports:
    """Read everything; values that no row should have are read as None."""
    queued, running = (_list_open(connection, status, most) for status, most in _OPEN)
    return Exports(
        queued_total=_count(connection, batch_exports, batch_exports.c.status == Status.QUEUED),
        queued=queued,
        running_total=_count(connection, batch_exports, batch_exports.c.status == Status.PROCESSING),
        running=running,
        endings=_list_endings(connection),
        notices_total=_count(connection, notices, _IS_OPEN),
        notices=_list_notices(connection),
    )


_OPEN = ((Status.QUEUED, QUEUE_LIMIT), (Status.PROCESSING, RUNNING_LIMIT))


def _count(connection: Connection, table: FromClause, condition: Any) -> int:
    return int(connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one())


def _list_open(connection: Connection, status: Status, most: int) -> list[Row]:
    """List the exports with this status, oldest first, each with its latest attempt.

    The ids are sorted and limited first, so that nothing else is read of those that are not listed.
    """
    order = (batch_exports.c.created_at, batch_exports.c.id)
    oldest = select(batch_exports.c.id).where(batch_exports.c.status == status).order_by(*order).limit(most).subquery()
    other = runs.alias("other")
    newest = select(func.max(other.c.attempt)).where(other.c.export_id == oldest.c.id).scalar_subquery()
    latest = and_(runs.c.export_id == oldest.c.id, runs.c.attempt == newest)
    listed = oldest.join(batch_exports, batch_exports.c.id == oldest.c.id).outerjoin(runs, latest)
    both = select(*_export_columns(connection), *_run_columns()).select_from(listed)
    return _read(connection, both.order_by(*order))


def _list_endings(connection: Connection) -> list[Row]:
    """List the exports that ended last, latest first.

    An export that failed without an attempt, because it was too old, has no run: its completion event says so.
    """
    latest = select(*_run_columns(), runs.c.export_id.label("id"), runs.c.project_id, runs.c.outcome)
    latest = latest.where(runs.c.finished_at.is_not(None))
    ended = latest.order_by(runs.c.finished_at.desc()).limit(LATEST_RUNS).subquery()
    query = select(ended).where(ended.c.outcome.in_(ENDED)).order_by(ended.c.finished_at.desc()).limit(ENDINGS_LIMIT)
    found = {(row["id"], row["attempt"]): row for row in _read(connection, query)}
    for event in _list_failures(connection):
        found.setdefault((event.batch_export_id, event.attempt), _to_row(event))
    endings = sorted(found.values(), key=_read_end, reverse=True)[:ENDINGS_LIMIT]
    ids = [row["id"] for row in endings]
    query = select(*_export_columns(connection)).where(batch_exports.c.id.in_(ids))
    exports = {row["id"]: row for row in _read(connection, query)}
    return [row | exports.get(row["id"], {}) for row in endings]


def _read_end(row: Row) -> float:
    at = row["finished_at"]
    return at.timestamp() if isinstance(at, datetime) else 0.0


def _list_failures(connection: Connection) -> Iterable[ExportFinished]:
    events = select(outbox.c.payload).order_by(outbox.c.id.desc()).limit(LATEST_EVENTS)
    for payload in connection.scalars(events):
        with suppress(Malformed):
            event = read_finished(payload.encode() if isinstance(payload, str) else payload)
            if event.status == Status.FAILED:
                yield event


def _to_row(event: ExportFinished) -> Row:
    ended = {"id": event.batch_export_id, "project_id": event.project_id, "attempt": event.attempt}
    ended |= {"table": event.table_name, "format": event.format, "finished_at": event.finished_at}
    return ended | {"outcome": Outcome.FAILED, "error": (event.error or "")[:REASON_CHARACTERS] or None}


def _list_notices(connection: Connection) -> list[Row]:
    """List the notices that are not sent yet, next due first."""
    names = ("channel", "state", "attempts", "created_at", "next_attempt_at")
    columns = [notices.c[name] for name in names]
    export_id = func.substr(notices.c.export_id, 1, ID_CHARACTERS).label("id")
    error = func.substr(notices.c.error, 1, REASON_CHARACTERS).label("error")
    query = select(*columns, export_id, error, notices.c.payload).where(_IS_OPEN)
    found = _read(connection, query.order_by(notices.c.next_attempt_at).limit(NOTICES_LIMIT))
    return [row | {"project_id": _read_project(row.pop("payload"))} for row in found]


def _read_project(payload: Any) -> str | None:
    with suppress(Malformed):
        return read_finished(payload.encode() if isinstance(payload, str) else payload).project_id
    return None


def _export_columns(connection: Connection) -> list[Any]:
    columns = batch_exports.c
    texts = {"id": ID_CHARACTERS, "project_id": ID_CHARACTERS, "name": NAME_CHARACTERS}
    texts |= {"format": WORD_CHARACTERS, "status": WORD_CHARACTERS, "log": REASON_CHARACTERS}
    shortened = [func.substr(columns[name], 1, most, type_=AnyText()).label(name) for name, most in texts.items()]
    return [*shortened, columns.created_at, columns.updated_at, _table_name(connection).label("table")]


def _table_name(connection: Connection) -> Any:
    """Return an expression for the table that an export reads, or NULL if its query has none; it raises no error."""
    stored: Any = batch_exports.c.query
    if connection.dialect.name == "sqlite":
        readable = and_(func.length(stored) < QUERY_BYTES, func.json_valid(stored) == 1)
        name = func.json_extract(stored, "$.tableName", type_=AnyText())
        return func.substr(case((readable, name)), 1, WORD_CHARACTERS, type_=AnyText())
    name = stored.op("->>", return_type=AnyText())(literal_column("'tableName'"))
    return func.substr(case((func.pg_column_size(stored) < QUERY_BYTES, name)), 1, WORD_CHARACTERS, type_=AnyText())


def _run_columns() -> list[Any]:
    names = ("attempt", "worker", "claimed_at", "heartbeat_at", "lease_until", "finished_at", "error_class")
    error = func.substr(runs.c.error, 1, REASON_CHARACTERS, type_=AnyText()).label("error")
    return [*(runs.c[name] for name in (*names, "rows", "bytes", "next_attempt_at", "stage")), error]


_KINDS: dict[str, type] = {
    **dict.fromkeys(("attempt", "attempts", "rows", "bytes"), int),
    **dict.fromkeys(
        ("created_at", "updated_at", "claimed_at", "heartbeat_at", "lease_until", "finished_at", "next_attempt_at"),
        datetime,
    ),
}
"""The types of the columns that are not texts. SQLite stores any value in any column."""


def _read(connection: Connection, query: Select[Any]) -> list[Row]:
    rows = connection.execute(query).mappings()
    return [{name: _check_kind(name, value) for name, value in row.items()} for row in rows]


def _check_kind(name: str, value: Any) -> Any:
    return value if isinstance(value, _KINDS.get(name, str)) else None
