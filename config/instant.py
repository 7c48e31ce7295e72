"""Declares the column type of a time: an aware UTC datetime, which any stored value can be read as."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, TypeDecorator
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TypeEngine


class _SqliteInstant(sqlite.DATETIME):
    """A time of SQLite, which stores any value in any column: one that is not a time is read as the first datetime."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """Return the function that reads a stored value."""
        read: Any = super().result_processor(dialect, coltype)

        def read_any(value: Any) -> datetime | None:
            try:
                found: datetime | None = read(value)
            except (ValueError, TypeError):
                return datetime.min.replace(tzinfo=UTC)
            return found

        return read_any


_SQLITE_INSTANT = _SqliteInstant()  # type: ignore[no-untyped-call] # SQLAlchemy's constructor has no types


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as Langfuse stores it: a timestamp without time zone, in UTC.

    Reading never raises. A value of SQLite that is not a time is read as the first datetime. A time of Postgres before
    the year 1 or after 9999 is read as the first or the last datetime (see runtime/database.py).
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type that reads and writes it in this database."""
        return dialect.type_descriptor(_SQLITE_INSTANT if dialect.name == "sqlite" else DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Convert to UTC and drop the time zone; raise ValueError for a naive datetime, because its zone is unknown."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: pass an aware one")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Return an aware UTC datetime, whether the column has a time zone or not."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
