"""A baseline exporter: one row at a time, with the standard library.

It makes the same columns as an export of traces: scores, all read before, go to a column a name; comments are looked up
for some thousand rows at a time; JSON is told from text by parsing it.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from sqlalchemy import Connection, make_url, text

from runtime.database import open_database

PROJECT = "demo"
ROWS_AT_ONCE = 5000
SELECTED = (
    "SELECT id, timestamp, name, user_id, session_id, release, version, environment, tags, bookmarked, public,"
    " input, output, metadata FROM traces FINAL WHERE project_id = {project:String} ORDER BY timestamp DESC"
)
NAMES = (
    "SELECT DISTINCT name FROM scores FINAL WHERE project_id = {project:String} AND data_type != 'CORRECTION'"
    " ORDER BY name"
)
SCORED = (
    "SELECT trace_id, name, data_type, value, string_value FROM scores FINAL WHERE project_id = {project:String}"
    " AND trace_id IS NOT NULL AND data_type != 'CORRECTION'"
)
COMMENTED = text(
    "SELECT object_id, comments.id, content, email, comments.created_at FROM comments"
    " LEFT JOIN users ON users.id = author_user_id JOIN json_each(:ids) AS asked ON asked.value = object_id"
    " WHERE project_id = :project AND object_type = 'TRACE' ORDER BY comments.created_at"
)

Row = tuple[Any, ...]
Scored = defaultdict[str, dict[str, list[Any]]]


def written(folder: Path, form: str, clickhouse: str, database: str) -> tuple[int, int]:
    """Export all traces to a file; return its rows and its bytes."""
    path = folder / f"rows.{form.lower()}"
    count = 0
    with (
        closing(clickhouse_connect.get_client(dsn=clickhouse, autogenerate_session_id=False)) as client,
        open_database(make_url(database)).connect() as connection,
        path.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file,
    ):
        scores = [row[0] for row in client.query(NAMES, parameters={"project": PROJECT}).result_rows]
        scored = _scores(client)
        with client.query_rows_stream(SELECTED, parameters={"project": PROJECT}) as rows:
            names = [*rows.source.column_names, "comments", *scores]
            write = _csv(file, names) if form == "CSV" else _jsonl(file, names)
            for row in _completed(rows, scores, scored, connection):
                write(row)
                count += 1
    return count, path.stat().st_size


def _scores(client: Client) -> Scored:
    scored: Scored = defaultdict(dict)
    for trace_id, name, data_type, number, said in client.query(SCORED, parameters={"project": PROJECT}).result_rows:
        scored[trace_id].setdefault(name, []).append(number if data_type in {"NUMERIC", "BOOLEAN"} else said)
    return scored


def _completed(rows: Iterable[Row], scores: list[str], scored: Scored, connection: Connection) -> Iterator[Row]:
    nothing: dict[str, list[Any]] = {}
    remaining = iter(rows)
    while some := list(islice(remaining, ROWS_AT_ONCE)):
        ids = [row[0] for row in some]
        comments: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for found in connection.execute(COMMENTED, {"ids": json.dumps(ids), "project": PROJECT}):
            comments[found[0]].append(
                dict(zip(("id", "content", "author_email", "created_at"), found[1:], strict=True))
            )
        for row in some:
            has = scored.get(row[0], nothing)
            yield (*row, comments.get(row[0], []), *(has.get(name) for name in scores))


def _csv(file: Any, names: list[str]) -> Callable[[Row], object]:
    writer = csv.writer(file)
    writer.writerow(names)
    return lambda row: writer.writerow(
        [json.dumps(value, default=str) if isinstance(value, list | dict) else value for value in row]
    )


def _jsonl(file: Any, names: list[str]) -> Callable[[Row], object]:
    json_columns = {names.index("input"), names.index("output")}

    def write(row: Row) -> None:
        values = [_parsed(value) if index in json_columns else value for index, value in enumerate(row)]
        file.write(json.dumps(dict(zip(names, values, strict=True)), default=str, ensure_ascii=False) + "\n")

    return write


def _parsed(value: str | None) -> Any:
    try:
        return None if value is None else json.loads(value)
    except ValueError:
        return value
