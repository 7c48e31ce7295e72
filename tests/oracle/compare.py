"""Compares an exported file with what it must contain, and says in words what differs."""

from collections import Counter
from collections.abc import Mapping, Sequence

from tests.oracle.cells import neutral, same_cell
from tests.oracle.files import File, read
from tests.oracle.values import Cell, Expected

SHOWN = 5


def differences(expected: Expected, data: bytes, file_format: str, *, neutralised: bool = True) -> list[str]:
    """What is wrong with a file, a few sentences at most; empty when it is right.

    The order of the rows counts where the query promises one. `neutralised` is whether CSV disarms formulas.
    """
    file = read(data, file_format)
    columns = tuple(neutral(name) for name in expected.columns) if _disarmed(file, neutralised) else expected.columns
    if file.columns is not None and file.columns != columns:
        return [f"columns: expected {columns}, found {file.columns}"]
    names = dict(zip(expected.columns, columns, strict=True))
    found = [_id(row, neutralised=_disarmed(file, neutralised)) for row in file.rows]
    return _of_ids(expected, found) or _of_cells(expected, file, found, names, neutralised=neutralised)


def _disarmed(file: File, neutralised: bool) -> bool:
    return neutralised and file.format == "CSV"


def _id(row: Mapping[str, object], *, neutralised: bool) -> str:
    """The id as it was before CSV disarmed it."""
    found = str(row["id"])
    return found[1:] if neutralised and found.startswith("'") and neutral(found[1:]) == found else found


def _of_ids(expected: Expected, found: Sequence[str]) -> list[str]:
    wanted, there = Counter(expected.ids), Counter(found)
    problems = []
    if missing := list((wanted - there).elements()):
        problems.append(f"{len(missing)} rows are missing: {missing[:SHOWN]}")
    if extra := list((there - wanted).elements()):
        problems.append(f"{len(extra)} rows are too many: {extra[:SHOWN]}")
    if not problems and expected.ordered and expected.ids != list(found):
        place = next(i for i, (a, b) in enumerate(zip(expected.ids, found, strict=True)) if a != b)
        problems.append(
            f"the order differs from row {place}: expected {expected.ids[place : place + SHOWN]}, "
            f"found {list(found[place : place + SHOWN])}"
        )
    return problems


def _of_cells(
    expected: Expected, file: File, found: Sequence[str], names: Mapping[str, str], *, neutralised: bool
) -> list[str]:
    rows = dict(zip(found, file.rows, strict=True))
    problems = []
    for wanted in expected.rows:
        there = rows[str(wanted["id"])]
        problems += [
            f"row {wanted['id']!r}, column {column!r}: expected {_short(wanted[column])}, found {_short(there[name])}"
            for column, name in names.items()
            if not same_cell(wanted[column], there[name], file.format, neutralised=neutralised)
        ]
    return [*problems[:SHOWN], f"… and {len(problems) - SHOWN} more cells"] if len(problems) > SHOWN else problems


def _short(value: Cell | object) -> str:
    text = repr(value)
    return text if len(text) < 300 else f"{text[:300]}…"
