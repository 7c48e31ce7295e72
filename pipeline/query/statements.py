"""Names the shapes of the statements of an export of a ClickHouse table, so that each shape is compiled once."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

from pipeline.query.choose_columns import choose_columns
from pipeline.query.clickhouse import Resolved, select_large_row, select_rows, select_survey
from pipeline.spec import ExportSpec
from pipeline.sql.clickhouse import chunk
from pipeline.sql.named_values import list_named_values
from pipeline.sql.scores import select_names
from pipeline.sql.sources import View
from pipeline.sql.statements import Statement
from pipeline.tables.clickhouse_table import ClickHouseTable


def make_survey(declared: ClickHouseTable, spec: ExportSpec) -> Statement | None:
    """Return the survey of the table that the rows are read from; None for a view that needs none.

    Raises Rejected if the query names a column that the table does not have.
    """
    table = choose_columns(declared, spec.query)
    if isinstance(table.source, View) and table.source.survey is None:
        return None
    values = list_named_values(spec.project_id, spec.created_at)
    return Statement(("survey", declared, spec.query.columns), values, partial(select_survey, table, spec))


def make_names(spec: ExportSpec) -> Statement:
    """Return the statement that selects the names of scores."""
    values = list_named_values(spec.project_id, spec.created_at)
    return Statement(("names",), values, partial(select_names, spec.project_id, spec.created_at))


@dataclass(frozen=True)
class RowStatements:
    """Makes the statements that read rows.

    `table` is the `declared` one, less what the query's columns and the columns in ClickHouse leave out.
    """

    declared: ClickHouseTable
    table: ClickHouseTable
    query: Resolved
    spec: ExportSpec

    def make_rows(self, names: list[str], *, by_day: bool, only_scores_of_rows: bool = False) -> Statement:
        """Return the statement of `pipeline.query.clickhouse.select_rows`, with its parameters."""
        options = {"by_day": by_day, "only_scores_of_rows": only_scores_of_rows}
        make = partial(select_rows, self.table, self.query, self.spec, names, **options)
        shape = self._name_shape("rows", len(chunk(names)) if names else 0, *options.values())
        return Statement(shape, list_named_values(self.spec.project_id, self.spec.created_at, names), make)

    def make_large_row(self) -> Statement:
        """Return the statement of `pipeline.query.clickhouse.select_large_row`."""
        values = list_named_values(self.spec.project_id, self.spec.created_at)
        make = partial(select_large_row, self.table, self.query, self.spec)
        return Statement(self._name_shape("large row"), values, make)

    def _name_shape(self, *parts: Hashable) -> Hashable:
        return (*parts, self.declared, self.spec.query, self.spec.encoding)
