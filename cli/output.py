"""Prints results: tables and sentences for people, JSON for scripts, errors on stderr."""

import json
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape

FAILED = 1
BAD_USAGE = 2
GAP = 2
LAST_WIDTH = 20
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that JSON allows, and that a terminal acts on or UTF-8 can't encode."""


def console() -> Console:
    """Return the console for results: stdout, without line wrapping when it is piped."""
    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False, emoji=False)


def fail(message: str, *, status: int = FAILED) -> NoReturn:
    """End the command with an error on stderr and an exit status."""
    print_error(message)
    raise typer.Exit(status)


def print_error(message: str) -> None:
    """Print an error, of one or more lines, on stderr."""
    lines = "\n".join(map(format_cell, message.split("\n")))
    error_console().print(f"[bold red]waybill:[/] {escape(lines)}", soft_wrap=True)


def print_note(message: str) -> None:
    """Print a note on stderr, beside the results."""
    error_console().print(f"waybill: {format_cell(message)}", markup=False, soft_wrap=True)


def error_console() -> Console:
    """Return the console for errors, notes and progress: stderr."""
    return Console(stderr=True, highlight=False, emoji=False)


def print_sentence(text: str) -> None:
    """Print a sentence on stdout; its values may be any text."""
    console().print(format_cell(text), markup=False)


def print_json(value: Any) -> None:
    """Print one JSON document; times are ISO 8601 UTC with Z."""
    ascii_only = (sys.stdout.encoding or "utf-8").lower() != "utf-8"
    text = json.dumps(value, default=_to_json, ensure_ascii=ascii_only, indent=2)
    typer.echo(_UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print rows under their headings, or the sentence `empty` if there are none.

    A piped row is one line. On a terminal that is too narrow for all columns, each row takes several lines, and so do
    the headings; a text is wrapped between words only, so that an ID can be copied.
    """
    cells = [[format_cell(value) for value in row] for row in rows]
    if not cells:
        typer.echo(empty)
        return
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    out = console()
    width = sum(widths) + GAP * len(widths) if out.soft_wrap else out.width
    lines = _split_columns(widths, width)
    for style, row in (("bold", columns), *(("", row) for row in cells)):
        for number, line in enumerate(lines):
            start = GAP if number else 0
            for text in _lay_out([(row[index], widths[index]) for index in line], start, width):
                out.print(text, style=style, soft_wrap=True, markup=False)


def _split_columns(widths: Sequence[int], width: int) -> list[list[int]]:
    """Return which columns share a line of a terminal; lines after the first are indented."""
    lines: list[list[int]] = [[]]
    used = 0
    for index, column in enumerate(widths):
        least = min(column, LAST_WIDTH) if index == len(widths) - 1 else column
        if lines[-1] and used + least > width:
            lines.append([])
            used = GAP
        lines[-1].append(index)
        used += column + GAP
    return lines


def _lay_out(cells: Sequence[tuple[str, int]], start: int, width: int) -> Iterator[str]:
    """Align cells, each with the width of its column, in one line; wrap the last one between words."""
    *before, (last, _) = cells
    fixed = " " * start + "".join(set_cell_size(text, size + GAP) for text, size in before)
    room = max(width - cell_len(fixed), LAST_WIDTH)
    parts = textwrap.wrap(last, room, break_long_words=False, break_on_hyphens=False) or [""]
    for number, part in enumerate(parts):
        yield (fixed if number == 0 else " " * cell_len(fixed)) + part


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print names and values in two aligned columns."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        # The terminal breaks long lines itself: a link can then be copied and opened.
        console().print(f"[bold]{escape(name.ljust(width))}[/]  {escape(format_cell(value))}", soft_wrap=True)


def format_cell(value: Any) -> str:
    """Format one value; control characters are escaped, so that no request can change the terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    text = str(value)
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    """Escape a character unless it is printable, a space of any width, or the joiner between parts of an emoji."""
    if character.isprintable() or character == "\u200d" or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()


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
