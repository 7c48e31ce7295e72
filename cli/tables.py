"""The command `tables`, which lists what can be exported, filtered, sorted and searched."""

from typing import Annotated, Any, get_args

import typer

from cli.output import console, fail, print_json, print_table
from pipeline.request import Filter
from pipeline.tables import TABLES, TableDeclaration
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.columns import ACCEPTED_FILTERS, AnyFilterable, Filterable

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KINDS = {
    "TEXT": "text",
    "BOOL": "true or false",
    "INTEGER": "whole number",
    "NUMBER": "number",
    "DECIMAL": "exact number",
    "INSTANT": "time",
    "JSON": "JSON",
    "MAYBE_JSON": "JSON if valid, else text",
    "LIST": "list",
}
MATCHES = "matches"
PER_SCORE = ("…", "one column per score name; scores.NAME in columns")


def tables(
    table: Annotated[str | None, typer.Argument(help="The table to describe.", show_default=False)] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the tables, or the columns, filters, sort orders and searches of one table."""
    if table is not None and table not in TABLES:
        fail(f"There is no table {table}. The tables are: {', '.join(sorted(TABLES))}.", status=2)
    if table is not None:
        described = _describe(TABLES[table])
        print_json(described) if as_json else _print_table(described)
        return
    every = [_describe(TABLES[name]) for name in sorted(TABLES)]
    if as_json:
        print_json(every)
        return
    counted = [(each["table"], each["source"], len(each["columns"]), len(each["filters"])) for each in every]
    print_table(("table", "source", "columns", "filters"), counted, empty="There are no tables.")


def _describe(table: TableDeclaration) -> dict[str, Any]:
    return {
        "table": table.name,
        "source": "ClickHouse" if isinstance(table, ClickHouseTable) else "database",
        "columns": [{"name": column.name, "kind": column.kind.name} for column in table.columns],
        "scoreColumns": isinstance(table, ClickHouseTable) and bool(table.scores),
        "filters": [_describe_filter(each) for each in table.filterables],
        "searchIn": list(table.searched),
    }


def _describe_filter(column: AnyFilterable) -> dict[str, Any]:
    return {
        "column": column.id,
        "names": list(column.names),
        "type": column.type,
        "takes": {kind: _operators(column, kind) for kind in sorted(ACCEPTED_FILTERS[column.type])},
        "sortable": column.sortable,
    }


def _operators(column: AnyFilterable, kind: str) -> list[str]:
    full_text = isinstance(column, Filterable) and column.full_text
    return [operator for operator in OPERATORS[kind] if operator != MATCHES or full_text]


def _operators_by_type() -> dict[str, tuple[str, ...]]:
    """Read the filter types and their operators from the models of the stored query."""
    models = get_args(get_args(Filter)[0])
    return {
        get_args(model.model_fields["type"].annotation)[0]: _literals(model.model_fields["operator"].annotation)
        for model in models
    }


def _literals(annotation: Any) -> tuple[str, ...]:
    """Return the values of a Literal, or of a union of Literals."""
    return tuple(
        text for each in get_args(annotation) for text in ((each,) if isinstance(each, str) else _literals(each))
    )


OPERATORS = _operators_by_type()


def _print_table(described: dict[str, Any]) -> None:
    out = console()
    out.print(f"[bold]{described['table']}[/], read from {described['source']}\n")
    columns = [(each["name"], KINDS[each["kind"]]) for each in described["columns"]]
    print_table(("column", "type"), [*columns, *([PER_SCORE] if described["scoreColumns"] else [])], empty="")
    out.print()
    rows = [
        (each["column"], ", ".join(each["names"]), _type_label(each), each["sortable"]) for each in described["filters"]
    ]
    print_table(("filter column", "other names", "type", "sortable"), rows, empty="No column can be filtered.")
    out.print()
    taken = {each["type"]: each["takes"] for each in described["filters"]}
    operators = [(name, *each) for name in sorted(taken) for each in _short_operators(taken[name])]
    print_table(("type", "filter types", "operators"), operators, empty="")
    out.print(f"\nSearch in: {', '.join(described['searchIn']) or 'nothing'}")


def _type_label(described: dict[str, Any]) -> str:
    full_text = any(MATCHES in operators for operators in described["takes"].values())
    return f"{described['type']}, and {MATCHES}" if full_text else str(described["type"])


def _short_operators(takes: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Return the operators of each filter type, spelled as in short filters."""
    return [
        (kind, " ".join(operator.replace(" ", "-") for operator in operators if operator != MATCHES))
        for kind, operators in takes.items()
    ]
