"""Reads rows of `batch_exports` and `waybill_runs` into records, or says which value can't be read."""

import json
import re
from typing import Any, NoReturn

from sqlalchemy import Column, RowMapping, Select, and_, cast, func, select
from sqlalchemy import Text as AnyText

from config.tables import batch_exports, runs
from consumer.models import Job, Run, Unreadable

MAX_DEPTH = 100
"""Levels of objects and lists in a stored query; a query that means anything has less than ten."""

MAX_CHARACTERS = 8_000_000
"""The part of a stored query that is read: more than any query that is run, and its objects need 20 bytes for each."""

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def select_jobs() -> Select[Any]:
    """Select exports, each with its latest run; read the rows with `to_job`.

    The query is selected as text, because what is not JSON that Python can load must not fail the statement. No more
    of it is selected than shows that it is too long, because a worker that runs out of memory stops all its exports.
    """
    other = runs.alias("other")
    newest = select(func.max(other.c.attempt)).where(other.c.export_id == batch_exports.c.id).scalar_subquery()
    latest = and_(runs.c.export_id == batch_exports.c.id, runs.c.attempt == newest)
    names = [column.label(f"run_{column.name}") for column in runs.c]
    query = func.substr(cast(batch_exports.c.query, AnyText), 1, MAX_CHARACTERS + 1, type_=AnyText()).label("query")
    columns = [query if each.name == "query" else each for each in batch_exports.c]
    return select(*columns, *names).select_from(batch_exports.outerjoin(runs, latest))


def to_job(row: RowMapping) -> Job:
    """Convert one row of `select_jobs`; raises Unreadable."""
    fields = {column.name: _read(column, row[column.name]) for column in batch_exports.c if column.name != "query"}
    query = _parse(row["query"])
    run = None if row["run_attempt"] is None else to_run(row, "run_")
    return Job(run=run, query=query, **fields)


def to_run(row: RowMapping, prefix: str = "") -> Run:
    """Convert one row of `waybill_runs`, whose columns are named with `prefix`; raises Unreadable."""
    return Run(**{column.name: _read(column, row[prefix + column.name]) for column in runs.c})


def _read(column: Column[Any], value: Any) -> Any:
    """Check the type of a value, because SQLite stores any value in any column."""
    if value is None and column.nullable:
        return None
    if not isinstance(value, column.type.python_type):
        raise Unreadable(f"{column.name} has no valid value")
    return value


def _parse(text: Any) -> Any:
    if not isinstance(text, str):
        raise Unreadable("query has no valid value")
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"query has more than {MAX_CHARACTERS:,} characters")
    try:
        query = json.loads(text, parse_constant=_reject_constant)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # also a number with thousands of digits
        raise Unreadable("query is not JSON that can be read") from error
    if _is_deeper(query, MAX_DEPTH):
        raise _too_deep()
    return query


def check_query(query: Any) -> None:
    """Raise Unreadable for a query that a database would refuse to store, or that `to_job` could not read again."""
    if _is_deeper(query, MAX_DEPTH):
        raise _too_deep()
    try:
        text = json.dumps(query, allow_nan=False, ensure_ascii=False)
        text.encode()
    except ValueError as error:
        raise Unreadable("query has a number that is not finite, or half of a surrogate pair") from error
    if _NUL.search(text):
        raise Unreadable("query has a NUL character")


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _too_deep() -> Unreadable:
    return Unreadable(f"query is nested more than {MAX_DEPTH} levels deep")


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
