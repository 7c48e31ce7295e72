"""The command that shows every statement an export sends to the databases, without the values in its text."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, ExecutionContext, event

from cli import build
from cli.exports import Export, JsonFlag, Project, find
from cli.output import console, print_json, print_table
from config.settings import load
from consumer.attempt import read_job_spec
from pipeline.read import open_table
from pipeline.read.connections import Sources
from pipeline.spec import ExportSpec
from pipeline.types import Progress

SHOWN = 200
_PLACE = re.compile(r"\{(\w+):([^{}]+)\}")


@dataclass(frozen=True)
class Statement:
    """What was sent to a database: its text, and the type and value of each of its parameters by name."""

    database: str
    sql: str
    types: Mapping[str, str]
    values: Mapping[str, Any]


def explain(project: Project, export: Export, as_json: JsonFlag = False) -> None:
    """Show every statement that an export sends; it reads as far as the first batch of rows, and stores nothing."""
    settings = load(needs=["DATABASE_URL", "CLICKHOUSE_URL"])
    jobs = build.jobs(settings)
    job = find(jobs, project, export)
    spec = read_job_spec(job, job.attempt, row_limit=settings.row_limit)
    statements = sent(spec, build.sources(settings, build.engine(settings)))
    if as_json:
        print_json([_fields(each) for each in statements])
        return
    for number, each in enumerate(statements, 1):
        _print(number, each)


def sent(spec: ExportSpec, sources: Sources) -> list[Statement]:
    """Read an export as far as its first batch, enriched, and list the statements sent for it, in order.

    Raises what reading raises.
    """
    statements: list[Statement] = []
    watched = replace(sources.clickhouse, seen=lambda sql, values: statements.append(_of_clickhouse(sql, values)))
    progress = Progress()
    with _listening(sources.database, statements):
        with open_table(spec, replace(sources, clickhouse=watched), progress) as table:
            next(table.enrich(table.batches), None)
        progress.stop()
    return statements


def _of_clickhouse(sql: str, values: Mapping[str, Any]) -> Statement:
    return Statement("ClickHouse", sql, dict(_PLACE.findall(sql)), dict(values))


@contextmanager
def _listening(database: Engine, statements: list[Statement]) -> Iterator[None]:
    """Add what is sent to the database to the statements, as long as the block lasts."""

    def listen(
        _connection: Connection, _cursor: Any, sql: str, _parameters: Any, context: ExecutionContext, _many: bool
    ) -> None:
        statements.append(_of_database(sql, context))

    event.listen(database, "before_cursor_execute", listen)
    try:
        yield
    finally:
        event.remove(database, "before_cursor_execute", listen)


def _of_database(sql: str, context: Any) -> Statement:
    """Tell names, types and values apart; where places have no names, names are in the order of the places."""
    compiled = context.compiled
    if compiled is None:  # the driver's own, such as BEGIN
        return Statement("database", sql, {}, {})
    (values,) = context.compiled_parameters
    types = {name: str(bind.type) for bind, name in compiled.bind_names.items()}
    names = dict.fromkeys(compiled.positiontup or types)
    return Statement("database", sql, {name: types[name] for name in names}, {name: values[name] for name in names})


def _fields(each: Statement) -> dict[str, Any]:
    return {"database": each.database, "sql": each.sql, "parameters": dict(each.types), "values": dict(each.values)}


def _print(number: int, each: Statement) -> None:
    out = console()
    out.print(f"[bold]{number}. {each.database}[/]")
    out.print(each.sql, markup=False)
    out.print()
    rows = [(name, kind, _short(each.values[name])) for name, kind in each.types.items()]
    print_table(("parameter", "type", "value"), rows, empty="It has no parameters.")
    out.print()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"
