"""Reads which columns can be filtered and sorted: columns.tsv, copied by hand from the reference, table by table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.oracle.values import Refused

SCALARS = frozenset({"string", "stringOptions", "number", "datetime", "boolean"})
_SCORES = frozenset({"numberObject", "categoryOptions", "booleanObject"})
ACCEPTED = {
    "string": frozenset({"string", "stringOptions", "null"}),
    "stringOptions": frozenset({"string", "stringOptions", "null"}),
    "number": frozenset({"number", "null"}),
    "datetime": frozenset({"datetime", "null"}),
    "boolean": frozenset({"boolean", "null"}),
    "arrayOptions": frozenset({"arrayOptions", "stringOptions", "null"}),
    "stringObject": frozenset({"stringObject", "null"}),
    "numberObject": frozenset({"numberObject"}),
    "categoryOptions": frozenset({"categoryOptions", "stringOptions"}),
    "booleanObject": frozenset({"booleanObject"}),
    "scores": _SCORES,
    "positionInTrace": frozenset({"positionInTrace"}),
}
"""Which filter types a column of a type takes."""

# By the filter's own type, `scores` stands for one of these.
SCORE_COLUMNS = {
    "numberObject": "scores_avg",
    "categoryOptions": "score_categories",
    "booleanObject": "score_booleans",
}
_POSITION = ("events", "observations")
OBSERVATIONS_OF_EVENTS = "observations of events"
FULL_TEXT = ("events", OBSERVATIONS_OF_EVENTS)


@dataclass(frozen=True)
class Column:
    """A column that filters know: its id, its type, and its other names."""

    id: str
    type: str
    names: tuple[str, ...]

    @property
    def sortable(self) -> bool:
        """Whether there is one value in a row to sort by; an object's comments have many texts."""
        return self.type in SCALARS and self.id != "commentContent"


@cache
def columns_of(table: str) -> Mapping[str, Column]:
    """The columns of a table by id."""
    if table == OBSERVATIONS_OF_EVENTS:
        return {**columns_of("events"), **columns_of("observations")}
    lines = Path(__file__).with_name("columns.tsv").read_text("utf-8").splitlines()
    cells = [line.split("\t") for line in lines]
    found = [
        Column(id_, type_, tuple(name for name in names.split(", ") if name))
        for owner, id_, type_, names in cells
        if owner == table
    ]
    if table in _POSITION:
        found.append(Column("positionInTrace", "positionInTrace", ("Position in Trace",)))
    return {column.id: column for column in found}


def column_named(table: str, name: str) -> Column:
    """The column by id, else by another name; raises Refused."""
    columns = columns_of(table)
    if name in columns:
        return columns[name]
    for column in columns.values():
        if name in column.names:
            return column
    raise Refused(f"{table} has no column {name!r}")
