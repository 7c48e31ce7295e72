"""Translates the errors of ClickHouse: of its client, and those that the server writes into a response."""

import re

from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError
from urllib3.exceptions import HTTPError

from config.errors import Rejected, Unavailable
from runtime.network import CERTIFICATE_REMEDIES, explain_fault

CLIENT_ERRORS = (ClickHouseError, HTTPError, OSError)
"""What a call of the client may raise when the server or the connection fails."""

# Codes for an error in our own statement, whatever the server's state: syntax, names, types, parameters.
_STATEMENT_CODES = frozenset(
    {6, 10, 16, 27, 36, 41, 42, 43, 44, 46, 47, 49, 53, 62, 72, 115, 130, 179, 184, 207, 215, 386, 456, 457}
)
_IN_RESPONSE = re.compile(rb"Code: (\d+)\. DB::Exception: [^\x00]*")
_HTTP_STATUS = re.compile(r"\bHTTP (?:driver received|status)[^0-9]*(\d{3})\b", re.IGNORECASE)
_GRANT = re.compile(r"have (?:the )?grant ([A-Z][A-Z ]*(?:\([^)]*\))? ON [^\s,.]+\.?[^\s,.]*)")
_MISSING = re.compile(
    r"identifier [`'](?:\w+\.)?(\w+)|[Tt]able (?:[`']?\w+[`']?\.)?[`']?(\w+)[`']? (?:does not|doesn't) exist"
)
NARROW = (
    "ClickHouse does not have enough memory for this export. Narrow it: filter by a shorter time, or by name, user or "
    "session. Or ask your administrator to raise max_memory_usage of ClickHouse's user."
)
"""What the user can do if a statement needs too much memory."""
_LONGEST = 500
_OUT_OF_MEMORY = 241
NARROW_LIMIT = (
    "This export is larger than the limits of ClickHouse's user allow. Narrow it: filter by a shorter time. Or ask "
    "your administrator to raise the limit."
)
_LIMIT_CODES = frozenset({158, 191, 307, 396})
"""Codes for limits of rows and bytes in the user's profile, which a repeated statement meets again."""
_ACCESS_DENIED = 497
_UNKNOWN_TABLE = 60
_REMEDIES = {
    81: "the database of CLICKHOUSE_DB, or of the path of CLICKHOUSE_URL, does not exist: is its name right?",
    164: "the user of CLICKHOUSE_USER may not change settings: set `readonly` to 2 or 0 in its profile",
    192: "the user of CLICKHOUSE_USER does not exist: create it",
    372: "no statement reached the server that answered the first one: does the load balancer choose at random?",
    395: "the names of scores changed between two statements; is there a replica that lags behind?",
    193: "it rejects the login: is CLICKHOUSE_PASSWORD right?",
    516: "it rejects the login: are CLICKHOUSE_USER and CLICKHOUSE_PASSWORD right?",
}
"""Cause and remedy by the code of the server's error."""


class StatementRefused(Exception):
    """The server rejected a statement: it has a bug, or the server is too old for it."""


class Unreachable(Unavailable):
    """The server does not answer, or is no ClickHouse server."""


class OutOfMemory(Unavailable):
    """A statement needed more memory than the server gives it; `by_query` if the limit is that of one statement."""

    def __init__(self, text: str) -> None:
        super().__init__(f"ClickHouse failed: {text}", advice=NARROW)
        self.by_query = any(limit in text for limit in ("Query memory limit", "Memory limit (for query)"))


class MissingTable(Rejected):
    """The database has no such table; `table` is its name."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"In ClickHouse the table {table} is missing. Ask your administrator: is CLICKHOUSE_DB right, and is "
            "Langfuse up to date?"
        )
        self.table = table


def translate_client_error(error: Exception) -> Exception:
    """Return the error to raise instead of one of CLIENT_ERRORS: Unavailable, or StatementRefused."""
    if isinstance(error, DatabaseError) and error.code is not None:
        return _translate(error.code, str(error))
    if (status := _HTTP_STATUS.search(str(error))) is not None:
        return Unreachable(
            f"ClickHouse can't be reached: the server at its address answers with HTTP status {status[1]}: "
            "is CLICKHOUSE_URL the URL of its HTTP interface, with the path of a gateway as ?pathname=/path?"
        )
    reason = explain_fault(error)
    remedy = CERTIFICATE_REMEDIES.get(reason, "is CLICKHOUSE_URL right, and is the server running?")
    return Unreachable(f"ClickHouse can't be reached ({reason}): {remedy}")


def find_server_error(response: bytes) -> Exception | None:
    """Return the error that the server wrote at the end of a response, translated; None if there is none."""
    written = _IN_RESPONSE.search(response)
    return _translate(int(written[1]), written[0].decode(errors="replace")) if written else None


def _translate(code: int, message: str) -> Exception:
    text = _shorten(message)
    if code in _STATEMENT_CODES:
        return StatementRefused(text)
    if code == _OUT_OF_MEMORY:
        return OutOfMemory(text)
    if code in _LIMIT_CODES:
        return Rejected(f"{NARROW_LIMIT} ({text})")
    if code == _UNKNOWN_TABLE and (named := _MISSING.search(text)) is not None:
        return MissingTable(named[1] or named[2])
    return Unavailable(f"ClickHouse failed: {_explain(code, text) or text}")


def _explain(code: int, text: str) -> str | None:
    """Return cause and remedy of a fault that an operator can correct, else None."""
    if code == _ACCESS_DENIED:
        right = _GRANT.search(text)
        needed = f"`GRANT {right[1]}`" if right else "GRANT SELECT on the tables of CLICKHOUSE_DB"
        return f"the user of CLICKHOUSE_USER lacks a right: run {needed} for this user"
    return _REMEDIES.get(code)


def _shorten(message: str) -> str:
    return " ".join(message.split())[:_LONGEST]
