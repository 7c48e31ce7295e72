"""Reads the raw tables of all projects, every value exact, by means that the product does not use.

ClickHouse: plain HTTP and JSON with type names. SQL databases: every column cast to text and parsed here. Bytes that
are not UTF-8 are U+FFFD; how many is not promised, so a run of them counts as one, here and in files.
"""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, text

from tests.oracle.values import Row

CLICKHOUSE_TABLES = ("traces", "observations", "scores", "events_full", "dataset_run_items_rmt")
EXACT = {
    "default_format": "JSONCompactEachRowWithNamesAndTypes",
    "output_format_json_quote_decimals": "1",
    "output_format_json_quote_denormals": "1",
    "output_format_json_quote_64bit_integers": "0",
    "session_timezone": "UTC",
}
SQL_TABLES = {
    "users": "id name email",
    "comments": "id project_id object_type object_id content author_user_id created_at:instant",
    "trace_sessions": "id project_id bookmarked:bool public:bool",
    "datasets": "id project_id name",
    "dataset_items": (
        "id project_id dataset_id status input:json expected_output:json metadata:json source_trace_id "
        "source_observation_id created_at:instant updated_at:instant valid_from:instant valid_to:instant "
        "is_deleted:bool"
    ),
    "audit_logs": (
        "id project_id type api_key_id user_id org_id user_org_role user_project_role resource_type resource_id action "
        "before after created_at:instant updated_at:instant"
    ),
    "models": "id project_id",
    "pricing_tiers": "id model_id is_default:bool",
    "prices": "id model_id project_id pricing_tier_id usage_type price:decimal",
}
_WRAPPED = re.compile(r"(LowCardinality|Nullable|Array|Map)\((.*)\)", re.DOTALL)


@dataclass(frozen=True)
class World:
    """All raw rows of all projects, by table."""

    tables: Mapping[str, Sequence[Row]]

    def of(self, table: str, project_id: str) -> list[Row]:
        """The rows of one project."""
        return [row for row in self.tables[table] if row["project_id"] == project_id]


def load(clickhouse_url: str, database: str, engine: Engine) -> World:
    """Read everything that an export may depend on."""
    clickhouse = {table: _clickhouse_rows(clickhouse_url, database, table) for table in CLICKHOUSE_TABLES}
    return World({**clickhouse, **{table: _sql_rows(engine, table) for table in SQL_TABLES}})


def ask(url: str, settings: Mapping[str, str], body: bytes) -> bytes:
    """Send one statement to ClickHouse; raises urllib's HTTPError with the server's words as its body."""
    with urllib.request.urlopen(f"{url}/?{urllib.parse.urlencode(settings)}", data=body, timeout=120) as answer:
        content: bytes = answer.read()
    return content


def _clickhouse_rows(url: str, database: str, table: str) -> list[Row]:
    answer = ask(url, {**EXACT, "database": database}, f"SELECT * FROM {table}".encode())
    lines = [json.loads(readable(line)) for line in answer.split(b"\n") if line]
    names, types = lines[:2] if lines else ([], [])
    return [
        {name: typed(kind, value) for name, kind, value in zip(names, types, values, strict=True)}
        for values in lines[2:]
    ]


def readable(data: bytes) -> str:
    """Decode bytes that should be UTF-8; what is not, and runs of U+FFFD, are one U+FFFD."""
    return once(data.decode(errors="replace"))


def once(text: str) -> str:
    """A text with one U+FFFD for each run of them: how many stand for unreadable bytes is not promised."""
    return re.sub("\ufffd+", "\ufffd", text)


def typed(kind: str, value: Any) -> Any:
    """Turn a value of ClickHouse's JSON into the Python value that its type says."""
    if value is None:
        return None
    if wrapped := _WRAPPED.fullmatch(kind):
        return _typed_inside(wrapped[1], wrapped[2], value)
    if kind.startswith("DateTime64"):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    if kind.startswith("Decimal"):
        return Decimal(value)
    return float(value) if kind.startswith("Float") else value


def _typed_inside(outer: str, inner: str, value: Any) -> Any:
    if outer == "Array":
        return [typed(inner, each) for each in value]
    if outer == "Map":
        kind = re.fullmatch(r"(?:LowCardinality\(String\)|String), (.*)", inner, re.DOTALL)
        assert kind, inner
        return {name: typed(kind[1], each) for name, each in value.items()}
    return typed(inner, value)


def _sql_rows(engine: Engine, table: str) -> list[Row]:
    columns = dict(_name_and_kind(column) for column in SQL_TABLES[table].split())
    casts = ", ".join(f'CAST("{name}" AS TEXT)' for name in columns)
    with engine.connect() as connection:
        rows = connection.execute(text(f'SELECT {casts} FROM "{table}"')).all()
    return [
        {name: None if value is None else _PARSE[kind](value) for (name, kind), value in zip(columns.items(), row)}  # noqa: B905 (a Row's length is the statement's)
        for row in rows
    ]


def _name_and_kind(column: str) -> tuple[str, str]:
    name, _, kind = column.partition(":")
    return name, kind or "text"


def exact_json(document: str) -> Any:
    """Parse JSON with every digit kept; raises ValueError where JSON does not allow it, NaN included."""
    return json.loads(document, parse_float=Decimal, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _instant(value: str) -> datetime:
    found = datetime.fromisoformat(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


_PARSE: dict[str, Callable[[str], Any]] = {
    "text": str,
    "instant": _instant,
    "bool": lambda value: value in {"1", "true", "t"},
    "decimal": Decimal,
    "json": exact_json,
}
