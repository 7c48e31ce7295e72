"""Sorts what ClickHouse's clients and servers raise into the errors that callers know."""

from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError
from urllib3.exceptions import HTTPError

from config.errors import Unavailable

FAULTS = (ClickHouseError, HTTPError, OSError)
"""What a call to the client may raise when the server or the way to it fails."""

# Codes that say that our statement is wrong, whatever the server's state: syntax, names, types, parameters.
_OURS = frozenset(
    {6, 10, 16, 27, 36, 41, 42, 43, 44, 46, 47, 49, 53, 62, 72, 115, 130, 179, 184, 207, 215, 386, 456, 457}
)
_LONGEST = 500


class StatementRefused(Exception):
    """The server does not take a statement that we made: a bug, or a server too old for it."""


def failure(code: int | None, message: str) -> Exception:
    """Name a server's exception by its code: StatementRefused where the statement is at fault, else Unavailable."""
    words = _short(message)
    if code in _OURS:
        return StatementRefused(words)
    return Unavailable(f"ClickHouse failed: {words}")


def translated(error: Exception) -> Exception:
    """Name what a call to the client raised; one of FAULTS."""
    if isinstance(error, DatabaseError) and error.code is not None:
        return failure(error.code, str(error))
    reason = error.__cause__ or error
    return Unavailable(f"ClickHouse can't be reached: {type(reason).__name__}: {_short(str(error))}")


def _short(message: str) -> str:
    return " ".join(message.split())[:_LONGEST]
