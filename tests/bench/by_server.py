"""A baseline: ClickHouse runs the statement of an export and writes the rows to a file itself."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.progress import Progress
from pipeline.read import open_table
from pipeline.read.clickhouse_settings import OPTIONAL, REQUIRED
from pipeline.read.connect import connect
from pipeline.read.connections import ClickHouse, Sources
from pipeline.read.server import read_server
from pipeline.spec import ExportSpec

FORMATS = {"CSV": "CSVWithNames", "JSON": "JSONEachRow", "JSONL": "JSONEachRow", "PARQUET": "Parquet"}
"""ClickHouse's names of the formats; it writes JSON as lines."""


def prepare(spec: ExportSpec, sources: Sources, path: Path) -> Callable[[], tuple[int, int]]:
    """Find the statement of an export by reading its rows; return a function that writes them to a file.

    It returns the number of rows, and the size of the file in bytes.
    """
    statements: list[tuple[str, Mapping[str, Any]]] = []
    source = replace(sources.clickhouse, on_statement=lambda sql, values: statements.append((sql, values)))
    with open_table(spec, Sources(source, sources.database), Progress()) as table:
        rows = sum(batch.num_rows for batch in table.batches)
    sql, parameters = statements[-1]
    into = f"INSERT INTO FUNCTION file('{path}', '{FORMATS[spec.encoding.format.name]}')"
    return partial(_write, source, f"{into} {sql}", parameters, path, rows)


def _write(source: ClickHouse, statement: str, parameters: Mapping[str, Any], path: Path, rows: int) -> tuple[int, int]:
    path.unlink(missing_ok=True)
    with closing(connect(source)) as client:
        settings = read_server(client).limits.choose(REQUIRED | OPTIONAL)
        client.command(statement, parameters=dict(parameters), settings=settings)
    return rows, path.stat().st_size
