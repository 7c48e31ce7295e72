"""Reads a stored request into what is to be exported, or says what is wrong with it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from config.errors import Rejected
from pipeline.compress import CODECS
from pipeline.encode import FORMATS
from pipeline.request import ExportQuery

MAX_QUERY_CHARACTERS = 4_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Where pydantic's words name its own machinery, the user's own terms are said instead.
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "union_tag_not_found": "has no 'type'",
    "too_short": "should not be empty",
    "model_type": "should be an object",
    "model_attributes_type": "should be an object",
    "string_unicode": "should be valid Unicode",
}


@dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """One attempt at one export: what to read, and how to write it.

    `created_at` (aware, UTC) is the cutoff: rows of that instant or later are left out. `row_limit` None means
    all rows.
    """

    project_id: str
    export_id: str
    attempt: int
    created_at: datetime
    query: ExportQuery
    format: str
    row_limit: int | None
    prefix: str
    csv_neutralise: bool

    @property
    def nested(self) -> bool:
        """Whether the format can carry JSON values as values."""
        return self.format in {"JSON", "JSONL"}

    @property
    def typed(self) -> bool:
        """Whether the format has types of its own, and so a column for each name of scores."""
        return self.format == "PARQUET"

    @property
    def key(self) -> str:
        """The object's key: the same on every attempt."""
        milliseconds = (self.created_at - EPOCH) // timedelta(milliseconds=1)
        table, project_id, export_id = map(_safe, (self.query.table_name, self.project_id, self.export_id))
        name = f"{milliseconds}-lf-{table}-export-{project_id}-{export_id}"
        written = FORMATS[self.format]
        packed = "" if written.packs_itself else CODECS[self.query.compression].extension
        return f"{self.prefix}{name}.{written.extension}{packed}"


def _safe(part: str) -> str:
    """Percent-encode what could be a path or need quoting."""
    return quote(part, safe="")


def read_spec(  # noqa: PLR0913 (the columns of the row, and the settings that say how its file is written)
    *,
    project_id: str,
    export_id: str,
    attempt: int,
    created_at: datetime,
    query: object,
    format: str,  # noqa: A002 (the column's name)
    row_limit: int | None = None,
    prefix: str = "",
    csv_neutralise: bool = True,
) -> ExportSpec:
    """Read a row of `batch_exports`; `query` is its JSON, parsed or as text.

    Raises Rejected with the names of all that is wrong.
    """
    if format.upper() not in FORMATS:
        raise Rejected(f"The format {format[:40]!r} is unknown; it can be {', '.join(FORMATS)}.")
    return ExportSpec(
        project_id=project_id,
        export_id=export_id,
        attempt=attempt,
        created_at=created_at.astimezone(UTC),
        query=read_query(query),
        format=format.upper(),
        row_limit=row_limit,
        prefix=prefix,
        csv_neutralise=csv_neutralise,
    )


def read_query(query: object) -> ExportQuery:
    """Read a stored query, parsed or as text; raises Rejected with the names of all that is wrong."""
    text = query if isinstance(query, str) else json.dumps(query)
    if len(text) > MAX_QUERY_CHARACTERS:
        raise Rejected(
            f"The query is too long: {len(text):,} characters, and {MAX_QUERY_CHARACTERS:,} at most. "
            "Filter by fewer values."
        )
    try:
        return ExportQuery.model_validate(json.loads(text) if isinstance(query, str) else query)
    except ValidationError as error:
        problems = [_problem(each) for each in error.errors(include_url=False)[:10]]
        raise Rejected(f"The query can't be read: {'; '.join(problems)}.") from error
    except ValueError as error:
        raise Rejected("The query can't be read: it is not JSON.") from error


def _problem(error: Mapping[str, Any]) -> str:
    where = _where(error["loc"])
    if error["type"] == "union_tag_invalid":
        return f"{where}: the type {error['ctx']['tag'][:40]!r} is unknown; it can be {error['ctx']['expected_tags']}"
    if error["type"] == "literal_error":
        given = repr(error["input"])[:40]
        return f"{where}: {given} is unknown; it can be {error['ctx']['expected']}"
    words = _WORDS.get(error["type"], error["msg"].removeprefix("Value error, ").removeprefix("Input "))
    return f"{where}: {words}" if where else words


def _where(path: tuple[str | int, ...]) -> str:
    """Name a place as a person counts: `filter 2, operator`."""
    parts: list[str] = []
    for index, part in enumerate(path):
        if isinstance(part, int):
            parts[-1] += f" {part + 1}"
        elif not (index > 1 and isinstance(path[index - 1], int)):  # after the number comes the filter's type
            parts.append(part)
    return ", ".join(parts)
