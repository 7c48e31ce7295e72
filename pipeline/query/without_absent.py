"""Adapts the declaration of a table to columns that an older Langfuse does not have yet."""

from dataclasses import replace
from typing import Any

from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import Bool as ChBool
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import DateTime64, Decimal, Float64, Nullable
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import String as ChString
from sqlalchemy import Alias, ColumnElement, cast, null

from pipeline.sql.compile import Absent, list_absent
from pipeline.sql.sources import View
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.columns import AnyFilterable, Filterable, Output
from pipeline.types import Kind

_TYPES: dict[Kind, Any] = {
    Kind.BOOL: ChBool,
    Kind.NUMBER: Float64,
    Kind.DECIMAL: Decimal(38, 12),
    Kind.INSTANT: DateTime64(3, "UTC"),
}
"""Types of null by the meaning of a column.

Integers have the type that their value declares, so that files of older and newer tables can be read together. All
others are texts, because a list can't be null in ClickHouse.
"""


def hide_view(table: ClickHouseTable, absent: Absent) -> Absent:
    """Return the absent columns without those of a table whose name stands for the table's own view."""
    if not isinstance(table.source, View):
        return absent
    name = table.rows.element.name if isinstance(table.rows, Alias) else ""  # type: ignore[attr-defined] # a table
    return {each: columns for each, columns in absent.items() if each != name}


def without_absent(table: ClickHouseTable, absent: Absent) -> tuple[ClickHouseTable, set[str]]:
    """Return the table with null for outputs that need absent columns, and the names of these columns.

    Filters and orders that need them are not offered, so that a query with one is refused by name.
    """
    if not any(absent.values()):
        return table, set()
    found: set[str] = set()

    def adapt(output: Output) -> Output:
        needed = list_absent(output.value, absent)
        found.update(needed)
        return replace(output, value=_make_null(output), nested=None) if needed else output

    adapted = replace(
        table,
        outputs=tuple(map(adapt, table.outputs)),
        enricher_inputs=tuple(map(adapt, table.enricher_inputs)),
        filterables=tuple(each for each in table.filterables if not _needs_absent(each, absent)),
    )
    return adapted, found


def _needs_absent(filterable: AnyFilterable, absent: Absent) -> bool:
    return isinstance(filterable, Filterable) and bool(list_absent(filterable.value, absent))


def _make_null(output: Output) -> ColumnElement[Any]:
    declared = output.value.type if output.value is not None and output.kind is Kind.INTEGER else None
    return cast(null(), Nullable(declared or _TYPES.get(output.kind, ChString)))
