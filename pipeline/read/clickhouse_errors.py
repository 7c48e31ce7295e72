"""Translates the errors of ClickHouse: of its client, and those that the server writes into a response."""

import re

from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError
from urllib3.exceptions import HTTPError

from config.errors import Unavailable

CLIENT_ERRORS = (ClickHouseError, HTTPError, OSError)
"""What a call of the client may raise when the server or the connection fails."""

# Codes for an error in our own statement, whatever the server's state: syntax, names, types, parameters.
_STATEMENT_CODES = frozenset(
    {6, 10, 16, 27, 36, 41, 42, 43, 44, 46, 47, 49, 53, 62, 72, 115, 130, 179, 184, 207, 215, 386, 456, 457}
)
_IN_RESPONSE = re.compile(rb"Code: (\d+)\. DB::Exception: [^\x00]*")
_LONGEST = 500


class StatementRefused(Exception):
    """The server rejected a statement: it has a bug, or the server is too old for it."""


def translate_client_error(error: Exception) -> Exception:
    """Return the error to raise instead of one of CLIENT_ERRORS: Unavailable, or StatementRefused."""
    if isinstance(error, DatabaseError) and error.code is not None:
        return _translate(error.code, str(error))
    reason = error.__cause__ or error
    return Unavailable(f"ClickHouse can't be reached: {type(reason).__name__}: {_shorten(str(error))}")


def find_server_error(response: bytes) -> Exception | None:
    """Return the error that the server wrote at the end of a response, translated; None if there is none."""
    written = _IN_RESPONSE.search(response)
    return _translate(int(written[1]), written[0].decode(errors="replace")) if written else None


def _translate(code: int, message: str) -> Exception:
    text = _shorten(message)
    return StatementRefused(text) if code in _STATEMENT_CODES else Unavailable(f"ClickHouse failed: {text}")


def _shorten(message: str) -> str:
    return " ".join(message.split())[:_LONGEST]
