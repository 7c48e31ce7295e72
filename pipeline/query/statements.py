"""Names the shapes of the statements of an export of a ClickHouse table, so that each shape is compiled once."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.query.choose_columns import choose_columns
from pipeline.query.clickhouse import Resolved, needs_survey, select_large_row, select_rows, select_survey
from pipeline.spec import ExportSpec
from pipeline.sql.clickhouse import chunk
from pipeline.sql.named_values import list_named_values
from pipeline.sql.sources import is_latest, is_latest_of_few
from pipeline.sql.statements import Statement
from pipeline.tables.clickhouse_table import ClickHouseTable

FEW_ROWS = 10_000
"""The most rows of a project for which `is_latest_of_few` is used."""


def make_survey(declared: ClickHouseTable, spec: ExportSpec) -> Statement | None:
    """Return the statement of `pipeline.query.clickhouse.select_survey`; None if nothing must be known.

    Raises Rejected if the query names a column that the table does not have.
    """
    table = choose_columns(declared, spec.query)
    if not needs_survey(table):
        return None
    values = list_named_values(spec.project_id, spec.created_at)
    return Statement(("survey", declared, spec.query.columns), values, partial(select_survey, table, spec))


@dataclass(frozen=True)
class RowStatements:
    """Makes the statements that read rows.

    `table` is the `declared` one, less what the query's columns and the columns in ClickHouse leave out.
    """

    declared: ClickHouseTable
    table: ClickHouseTable
    query: Resolved
    spec: ExportSpec

    def make_rows(self, names: list[str], rows: int, *, by_day: bool) -> Statement:
        """Return the statement of `pipeline.query.clickhouse.select_rows`.

        `rows` is the number that the survey found in the project; 0 if there was none to find.
        """
        latest = is_latest_of_few if 0 < rows <= FEW_ROWS else is_latest
        return self._make_rows(names, by_day=by_day, latest=latest, only_scores_of_rows=False)

    def make_bounded_rows(self, names: list[str], *, by_day: bool) -> Statement:
        """Return a statement that selects the same rows as `make_rows`, and takes the least memory."""
        return self._make_rows(names, by_day=by_day, latest=is_latest, only_scores_of_rows=True)

    def _make_rows(self, names: list[str], **how: Any) -> Statement:
        make = partial(select_rows, self.table, self.query, self.spec, names, **how)
        shape = self._name_shape("rows", len(chunk(names)) if names else 0, *how.values())
        return Statement(shape, list_named_values(self.spec.project_id, self.spec.created_at, names), make)

    def make_large_row(self) -> Statement:
        """Return the statement of `pipeline.query.clickhouse.select_large_row`."""
        values = list_named_values(self.spec.project_id, self.spec.created_at)
        make = partial(select_large_row, self.table, self.query, self.spec)
        return Statement(self._name_shape("large row"), values, make)

    def _name_shape(self, *parts: Hashable) -> Hashable:
        return (*parts, self.declared, self.spec.query, self.spec.encoding)
