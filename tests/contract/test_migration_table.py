"""Every example in the table of docs/migrate-from-langfuse.md is what an export writes."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import insert

from config.metrics import Metrics
from config.tables import audit_logs
from pipeline.export import export
from pipeline.progress import Progress
from pipeline.spec import read_spec
from pipeline.storage.local import LocalStorage
from pipeline.types import FORMATS, OutputOptions
from tests.support.databases import CUTOFF, MAY, Databases, Row
from tests.support.documents import ROOT, tables

QUERIES: dict[str, Row] = {
    "empty": {
        "tableName": "traces",
        "filter": [{"type": "string", "column": "id", "operator": "=", "value": "no such trace"}],
    },
    "without-release": {
        "tableName": "traces",
        "filter": [{"type": "stringOptions", "column": "release", "operator": "none of", "value": ["x"]}],
    },
}
FIELD = re.compile(r'("(?:[^"]|"")*"|[^,\r\n"]*)(,|\r\n)')


@dataclass(frozen=True)
class Example:
    """One row of the table: an export, a place in it, and what Waybill writes there."""

    export: str
    place: str
    langfuse: str
    waybill: str


def read_examples() -> list[Example]:
    """Read the rows of the table whose second cell names a file."""
    text = (ROOT / "docs" / "migrate-from-langfuse.md").read_text()
    rows = [[cell.strip("`") for cell in cells[1:]] for cells in tables(text) if len(cells) == 5]
    return [Example(*row) for row in rows if "." in row[0]]


EXAMPLES = read_examples()


@pytest.fixture
def filled(databases: Databases) -> Databases:
    """The databases with the rows that the examples show."""
    databases.traces(
        {
            "id": "t",
            "name": "=1+1",
            "session_id": "s",
            "tags": ["b", "a"],
            "input": '{"a":1}',
            "metadata": {"k": '{"x":1}'},
        },
        {"id": "deleted", "is_deleted": 1},
    )
    span = {"id": "o", "trace_id": "t", "project_id": "p", "type": "SPAN", "event_ts": MAY, "is_deleted": 0}
    times = {"start_time": MAY, "end_time": "2026-05-10 12:01:30.000"}
    databases.put("observations", {**span, **times, "cost_details": {"total": "0.123456789012"}})
    item: Row = {"project_id": "p", "dataset_run_id": "r", "dataset_item_id": "i", "dataset_id": "d", "trace_id": "t"}
    item = {**item, "created_at": MAY, "event_ts": MAY, "is_deleted": 0}
    databases.put("dataset_run_items_rmt", {**item, "id": "first"}, {**item, "id": "second"})
    log = {"id": "a", "org_id": "o", "project_id": "p", "resource_type": "x", "resource_id": "x", "action": "update"}
    with databases.engine.begin() as connection:
        stamps = dict.fromkeys(("created_at", "updated_at"), CUTOFF.replace(month=5))
        connection.execute(insert(audit_logs).values(**log, **stamps, before='{"a":1}'))
    return databases


def write(databases: Databases, name: str, folder: Path) -> bytes:
    """Export the file of an example."""
    stem, _, extension = name.partition(".")
    (format_,) = [each.name for each in FORMATS.values() if each.extension == extension]
    query = {"tableName": stem, "filter": None, "orderBy": None, **QUERIES.get(stem, {})}
    spec = read_spec(
        project_id="p", export_id="e", attempt=1, created_at=CUTOFF, query=query, format=format_, output=OutputOptions()
    )
    metrics = Metrics(CollectorRegistry())
    result = export(spec, databases.sources, LocalStorage(folder), Progress(), metrics, fence=lambda: None)
    return (folder / result.key).read_bytes()


def records(data: bytes) -> Iterator[list[str]]:
    """Split CSV into the fields of its records, with their quotes."""
    record: list[str] = []
    for field, end in FIELD.findall(data.decode()):
        record.append(field)
        if end != ",":
            yield record
            record = []


def find(data: bytes, name: str, place: str, folder: Path) -> str:
    """Return what the file has in a place, as the table writes it."""
    names = sorted(path.name for path in folder.iterdir())
    of_folder = {"files": str(len(names)), "file name": re.sub(r"^\d+", "…", names[0])}
    if place in of_folder:
        return of_folder[place]
    return find_value(data.decode(), place) if name.endswith(".jsonl") else find_field(data, place)


def find_value(line: str, name: str) -> str:
    """Return the JSON value under a name in the only row."""
    start = line.index(f'"{name}":') + len(f'"{name}":')
    return line[start : json.JSONDecoder().raw_decode(line, start)[1]]


def find_field(data: bytes, place: str) -> str:
    """Return the field of a column in the only row, or what the place says of the whole file."""
    header, *rows = records(data)
    match place:
        case "rows":
            return str(len(rows))
        case "end of a line":
            return r"\r\n" if data.endswith(b"\r\n") else r"\n"
        case "first three columns":
            return ",".join(header[:3])
    (row,) = rows
    return row[header.index(place)] or "(nothing)"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: f"{each.export} {each.place}")
def test_an_export_writes_what_the_table_says(filled: Databases, tmp_path: Path, example: Example) -> None:
    folder = tmp_path / "files" / "exports"
    data = write(filled, example.export, folder)

    assert find(data, example.export, example.place, folder) == example.waybill


def test_each_example_shows_a_difference() -> None:
    assert len(EXAMPLES) >= 15
    assert [each for each in EXAMPLES if each.langfuse == each.waybill] == []
