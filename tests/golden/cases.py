"""Lists the golden files: every table and every way to read it, in every format, of a few seeded rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.types import FORMATS
from tests.oracle import worlds
from tests.oracle.columns import columns_of
from tests.oracle.load import Document
from tests.oracle.pools import EVENTS_ONLY, PROJECTS
from tests.support.tables import READINGS

FILES = Path(__file__).parent / "files"
SEED, SIZE = 1912, 5
NOT_UTF_8 = frozenset(map(chr, range(0xDC80, 0xDD00)))
PARQUET = "PARQUET"
ENDINGS = {each.name: "parquet.json" if each.name == PARQUET else each.extension for each in FORMATS.values()}


@dataclass(frozen=True)
class Case:
    """One export; `name` is the name of its files."""

    name: str
    project: str
    query: Mapping[str, Any]

    def path(self, file_format: str) -> Path:
        """The path of the file of a format; of Parquet, of its typed content."""
        return FILES / f"{self.name}.{ENDINGS[file_format]}"


def _case(table: str, *, events: bool = False, derived: bool = False) -> Case:
    query = {
        "tableName": table,
        "filter": None,
        "orderBy": {"column": "id" if "id" in columns_of(table) else "createdAt", "order": "ASC"},
        "useEventsTable": events,
    }
    name = f"{table}-of-events" if events or derived else table
    return Case(name, EVENTS_ONLY if derived else PROJECTS[0], query)


CASES = (*(_case(table, events=events) for table, events in READINGS), _case("traces", derived=True))


def world() -> dict[str, list[dict[str, Any]]]:
    """The rows by table, without values that a format may write in more than one way."""
    return {
        table: [{name: _settled(value) for name, value in _numberless(table, row).items()} for row in rows]
        for table, rows in worlds.make(SEED, SIZE).items()
    }


def _numberless(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """Text scores without their hidden number, which would only decide the order of the texts."""
    return {**row, "value": 0.0} if table == "scores" and row["data_type"] not in {"NUMERIC", "BOOLEAN"} else row


def _settled(value: Any) -> Any:
    if isinstance(value, str):
        return "plain" if NOT_UTF_8 & set(value) else value
    if isinstance(value, list):
        return [_settled(each) for each in value]
    if isinstance(value, dict):
        return {key: _settled(each) for key, each in value.items()}
    return Document(_stored(value.value)) if isinstance(value, Document) else value


def _stored(value: Any) -> Any:
    """A document with its keys in the order that PostgreSQL keeps: short ones first."""
    if isinstance(value, list):
        return [_stored(each) for each in value]
    if isinstance(value, dict):
        return {key: _stored(value[key]) for key in sorted(value, key=lambda key: (len(key.encode()), key))}
    return value
