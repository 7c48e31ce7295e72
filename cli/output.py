"""Prints results: tables and sentences for people, JSON for scripts, errors on stderr."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

FAILED = 1
BAD_USAGE = 2
GAP = 2
LAST_WIDTH = 20


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


def print_note(message: str) -> None:
    """Print a note on stderr, beside the results."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"waybill: {escape(format_cell(message))}")


def print_json(value: Any) -> None:
    """Print one JSON document; times are ISO 8601 UTC with Z."""
    typer.echo(json.dumps(value, default=_to_json, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print rows under their headings, or the sentence `empty` if there are none.

    Only the last column is wrapped, and only on a terminal, so that an ID can be copied and each line has a whole row.
    """
    cells = [[format_cell(value) for value in row] for row in rows]
    if not cells:
        typer.echo(empty)
        return
    headings = (*(Column(name, no_wrap=True) for name in columns[:-1]), Column(columns[-1]))
    table = Table(*headings, box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
    for row in cells:
        table.add_row(*map(escape, row))
    out = console()
    *fixed, last = (max(map(cell_len, column)) for column in zip(columns, *cells, strict=True))
    before = sum(fixed) + GAP * len(fixed)
    out.width = max(out.width, before + min(last, LAST_WIDTH)) if out.is_terminal else before + last
    out.print(table)


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


def join_choices(choices: Iterable[str]) -> str:
    """Join the choices of an option for its help: `a, b or c`."""
    *first, last = choices
    return f"{', '.join(first)} or {last}"


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
