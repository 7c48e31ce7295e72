"""Reads a row of `batch_exports` into an ExportSpec, or rejects it by naming all that is wrong."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from config.errors import Rejected
from pipeline.ignored_keys import find_ignored_keys
from pipeline.object_key import make_former_key, make_key
from pipeline.request import ExportQuery
from pipeline.types import FORMATS, Encoding, OutputOptions, choose_encoding

MAX_QUERY_CHARACTERS = 4_000_000
MAX_FILTERS = 500
DEFAULT_OUTPUT = OutputOptions()

# Replaces pydantic's messages that speak of its own types.
_MESSAGES = {
    "missing": "is missing",
    "union_tag_not_found": "has no 'type'",
    "too_short": "should not be empty",
    "model_type": "should be an object",
    "model_attributes_type": "should be an object",
    "string_unicode": "should be valid Unicode",
}


@dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """One attempt at one export: what to read, and how to write it.

    `created_at` (aware, UTC) is the cutoff: rows created at that instant or later are left out. `ignored` names the
    keys of the stored query that Waybill does not know. `expected_bytes` is the most that an earlier attempt has
    written.
    """

    project_id: str
    export_id: str
    attempt: int
    created_at: datetime
    query: ExportQuery
    encoding: Encoding
    ignored: tuple[str, ...] = ()
    expected_bytes: int = 0

    @property
    def output(self) -> OutputOptions:
        """The settings for the file."""
        return self.encoding.options

    @property
    def key(self) -> str:
        """The object's key: the same on every attempt."""
        return self._make_key(make_key)

    @property
    def former_key(self) -> str:
        """The key that earlier versions of Waybill used; an attempt of theirs may have left objects under it."""
        return self._make_key(make_former_key)

    def _make_key(self, make: Callable[..., str]) -> str:
        return make(
            self.output.prefix,
            self.created_at,
            self.query.table_name,
            project_id=self.project_id,
            export_id=self.export_id,
            extension=self.encoding.extension,
        )


def read_spec(  # noqa: PLR0913 (the columns of the row, and the settings for its file)
    *,
    project_id: str,
    export_id: str,
    attempt: int,
    created_at: datetime,
    query: object,
    format: str,  # noqa: A002 (the column's name)
    output: OutputOptions = DEFAULT_OUTPUT,
) -> ExportSpec:
    """Read a row of `batch_exports`; `query` is its JSON, parsed or as text.

    Raises Rejected with the names of all that is wrong.
    """
    if format.upper() not in FORMATS:
        raise Rejected(f"The format {format[:40]!r} is unknown; it can be {', '.join(FORMATS)}.")
    asked, ignored = _read_query(query)
    compression = asked.compression if "compression" in asked.model_fields_set else None
    return ExportSpec(
        project_id=project_id,
        export_id=export_id,
        attempt=attempt,
        created_at=created_at.astimezone(UTC),
        query=asked,
        encoding=choose_encoding(format.upper(), compression, output),
        ignored=ignored,
    )


def read_query(query: object) -> ExportQuery:
    """Read a stored query, parsed or as text; raises Rejected with the names of all that is wrong."""
    return _read_query(query)[0]


def list_ignored_keys(query: object) -> tuple[str, ...]:
    """Return the keys of a stored query that Waybill does not know; none if the query can't be read."""
    try:
        return _read_query(query)[1]
    except Rejected:
        return ()


def _read_query(query: object) -> tuple[ExportQuery, tuple[str, ...]]:
    text = query if isinstance(query, str) else json.dumps(query)
    if len(text) > MAX_QUERY_CHARACTERS:
        raise Rejected(
            f"The query is too long: {len(text):,} characters, and {MAX_QUERY_CHARACTERS:,} at most. "
            "Filter by fewer values."
        )
    try:
        stored: Any = json.loads(text) if isinstance(query, str) else query
        read = _limit_filters(ExportQuery.model_validate(stored))
    except ValidationError as error:
        problems = [_describe(each) for each in error.errors(include_url=False)[:10]]
        raise Rejected(f"The query can't be read: {'; '.join(problems)}.") from error
    except ValueError as error:
        raise Rejected("The query can't be read: it is not JSON.") from error
    return read, find_ignored_keys(read, stored)


def _limit_filters(query: ExportQuery) -> ExportQuery:
    count = len(query.filter or ())
    if count > MAX_FILTERS:
        raise Rejected(f"The query has too many filters: {count:,}, and {MAX_FILTERS:,} at most.")
    return query


def _describe(error: Mapping[str, Any]) -> str:
    where = _format_place(error["loc"])
    if error["type"] == "union_tag_invalid":
        return f"{where}: the type {error['ctx']['tag'][:40]!r} is unknown; it can be {error['ctx']['expected_tags']}"
    if error["type"] == "literal_error":
        given = repr(error["input"])[:40]
        return f"{where}: {given} is unknown; it can be {error['ctx']['expected']}"
    message = _MESSAGES.get(error["type"], error["msg"].removeprefix("Value error, ").removeprefix("Input "))
    return f"{where}: {message}" if where else message


def _format_place(path: tuple[str | int, ...]) -> str:
    """Name a place in the query, counted from 1: `filter 2, operator`."""
    parts: list[str] = []
    for index, part in enumerate(path):
        if isinstance(part, int):
            parts[-1] += f" {part + 1}"
        elif not (index > 1 and isinstance(path[index - 1], int)):  # the filter's type follows the number
            parts.append(part)
    return ", ".join(parts)
