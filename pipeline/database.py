"""Reads the application's relational database: faults named by what to do about them, long lists bound as one value."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import ColumnElement, Connection, Engine, Text, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from config.database import in_short, passes
from pipeline.errors import Unavailable

# Postgres takes it in no text, and so has no row with such an id.
NUL = "\x00"


@contextmanager
def connected(database: Engine) -> Iterator[Connection]:
    """Give a connection for the block; raises Unavailable when the database fails in it."""
    with faults(), database.connect() as connection:
        yield connection


@contextmanager
def faults() -> Iterator[None]:
    """Raise Unavailable when the database fails in the block; what it says of our own statements stays a bug."""
    try:
        yield
    except DBAPIError as error:
        if passes(error):
            raise Unavailable(f"the database failed: {in_short(error)}") from error
        raise
    except PoolExhausted as error:
        raise Unavailable(f"the database failed: {error}") from error


def among(column: ColumnElement[str], values: Iterable[str], database: Engine) -> ColumnElement[bool]:
    """Ask whether a column is one of some values, however many, bound as one."""
    wanted = [value for value in values if NUL not in value]
    if database.dialect.name == "postgresql":
        return column == any_(bindparam(None, wanted, type_=ARRAY(Text), unique=True))
    listed = func.json_each(json.dumps(wanted)).table_valued("value")
    return column.in_(select(listed.c.value))
