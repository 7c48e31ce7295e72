"""The command `explain`, which shows every statement that an export sends to the databases."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, ExecutionContext, event

from cli import build
from cli.exports import Export, JsonFlag, Project, find_job
from cli.output import console, print_json, print_note, print_table
from config.settings import load
from consumer.attempt import read_job_spec
from pipeline.ignored_keys import describe_names
from pipeline.progress import Progress
from pipeline.read import open_table
from pipeline.read.connections import ClickHouse, Sources
from pipeline.spec import ExportSpec
from pipeline.types import OutputOptions

VALUE_LIMIT = 200
_PLACEHOLDER = re.compile(r"\{(\w+):([^{}]+)\}")


@dataclass(frozen=True)
class Statement:
    """A statement sent to a database: its text, and the type and value of each parameter by name."""

    database: str
    sql: str
    types: Mapping[str, str]
    values: Mapping[str, Any]


def explain(project: Project, export: Export, as_json: JsonFlag = False) -> None:
    """Show the statements that an export sends to the databases; it reads one batch of rows and stores nothing."""
    settings = load(needs=["DATABASE_URL", "CLICKHOUSE_URL"])
    jobs = build.jobs(settings)
    job = find_job(jobs, project, export)
    spec = read_job_spec(job, job.attempt, OutputOptions(row_limit=settings.row_limit))
    if spec.ignored:
        print_note(f"the query has keys that are unknown and ignored: {describe_names(spec.ignored)}")
    statements = list_statements(spec, build.sources(settings, build.engine(settings)))
    if as_json:
        print_json([_fields(each) for each in statements])
        return
    for number, each in enumerate(statements, 1):
        _print(number, each)


def list_statements(spec: ExportSpec, sources: Sources) -> list[Statement]:
    """Read and enrich the first batch of an export, and return the statements sent for it, in order.

    Raises the errors of reading.
    """
    statements: list[Statement] = []

    def record(source: ClickHouse) -> ClickHouse:
        return replace(source, on_statement=lambda sql, values: statements.append(_clickhouse_statement(sql, values)))

    events = None if sources.events is None else record(sources.events)
    recorded = replace(sources, clickhouse=record(sources.clickhouse), events=events)
    progress = Progress()
    with _recording(sources.database, statements):
        with open_table(spec, recorded, progress) as table:
            next(table.enrich(table.batches), None)
        progress.stop()
    return statements


def _clickhouse_statement(sql: str, values: Mapping[str, Any]) -> Statement:
    return Statement("ClickHouse", sql, dict(_PLACEHOLDER.findall(sql)), dict(values))


@contextmanager
def _recording(database: Engine, statements: list[Statement]) -> Iterator[None]:
    """Append every statement that is sent to the database while the block runs."""

    def listen(
        _connection: Connection, _cursor: Any, sql: str, _parameters: Any, context: ExecutionContext, _many: bool
    ) -> None:
        statements.append(_database_statement(sql, context))

    event.listen(database, "before_cursor_execute", listen)
    try:
        yield
    finally:
        event.remove(database, "before_cursor_execute", listen)


def _database_statement(sql: str, context: Any) -> Statement:
    """Read names, types and values of the parameters; positional parameters are named in their order."""
    compiled = context.compiled
    if compiled is None:  # a statement of the driver itself, such as BEGIN
        return Statement("database", sql, {}, {})
    (values,) = context.compiled_parameters
    declared = {name: str(bind.type) for bind, name in compiled.bind_names.items()}
    types = {
        name: declared[each]
        for each in dict.fromkeys(compiled.positiontup or declared)
        for name in _expand(each, declared, values)
    }
    return Statement("database", sql, types, {name: values[name] for name in types})


def _expand(name: str, declared: Mapping[str, str], values: Mapping[str, Any]) -> list[str]:
    """Return the parameters that are sent for one: those of a list are `name_1`, `name_2`, ..."""
    if name in values:
        return [name]
    return [each for each in values if each not in declared and each.rpartition("_")[0] == name]


def _fields(each: Statement) -> dict[str, Any]:
    return {"database": each.database, "sql": each.sql, "parameters": dict(each.types), "values": dict(each.values)}


def _print(number: int, each: Statement) -> None:
    out = console()
    out.print(f"[bold]{number}. {each.database}[/]")
    out.print(each.sql, markup=False)
    out.print()
    rows = [(name, kind, _shorten(each.values[name])) for name, kind in each.types.items()]
    print_table(("parameter", "type", "value"), rows, empty="There are no parameters.")
    out.print()


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= VALUE_LIMIT else f"{text[:VALUE_LIMIT]}… ({len(text):,} characters)"
