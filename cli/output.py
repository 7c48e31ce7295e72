"""Prints results: tables and sentences for people, JSON for scripts, errors on stderr."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

FAILED = 1
BAD_USAGE = 2


def console() -> Console:
    """Return the console for results: stdout, without line wrapping when it is piped."""
    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


def fail(message: str, *, status: int = FAILED) -> NoReturn:
    """End the command with an error on stderr and an exit status."""
    print_error(message)
    raise typer.Exit(status)


def print_error(message: str) -> None:
    """Print an error on stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]waybill:[/] {escape(message)}")


def print_json(value: Any) -> None:
    """Print one JSON document; times are ISO 8601 UTC with Z."""
    typer.echo(json.dumps(value, default=_to_json, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print rows under their headings, or the sentence `empty` if there are none."""
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(escape(format_cell(value)) for value in row))
    if table.row_count:
        console().print(table)
    else:
        typer.echo(empty)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print names and values in two aligned columns."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        console().print(f"[bold]{escape(name.ljust(width))}[/]  {escape(format_cell(value))}")


def format_cell(value: Any) -> str:
    """Format one value; control characters are escaped, so that no request can change the terminal."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def format_size(count: float) -> str:
    """Format a number of bytes in decimal units: `999 B`, `12.4 MB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 (decimal units)
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)
