"""Compiles the statements of one export of a ClickHouse table."""

from typing import Any

from clickhouse_connect.cc_sqlalchemy import select
from sqlalchemy import Alias, Boolean, ColumnElement, FromClause, Select, cast, func

from pipeline.query.filters import conditions
from pipeline.query.order import ordering
from pipeline.query.related import joined, related
from pipeline.query.search import matches
from pipeline.spec import ExportSpec
from pipeline.sql import scores
from pipeline.sql.clickhouse import bind_bool, contains, is_before, is_json
from pipeline.sql.sources import View, is_latest
from pipeline.sql.survey import select_survey
from pipeline.tables.clickhouse_table import Declaration
from pipeline.types import Kind


def rows(declaration: Declaration, spec: ExportSpec, score_names: list[str], *, by_day: bool = True) -> Select[Any]:
    """Select the rows, one column a place in `selected`, then the rows' scores where there are names of scores.

    `by_day` is what the survey found.

    With a row limit, one row more than it is asked for: it tells whether the limit cut anything off.
    """
    columns = [value.label(f"c{place}") for place, value in enumerate(selected(declaration, spec))]
    table: Any = joined(declaration.rows, related(declaration, spec.query), spec)
    if score_names and declaration.scores:
        table, listed = scores.join_scores(table, spec.project_id, spec.created_at, declaration.scores, score_names)
        columns.append(listed.label(f"c{len(columns)}"))
    limit = None if spec.output.row_limit is None else spec.output.row_limit + 1
    statement: Select[Any] = (
        _latest(declaration, spec, select(*columns).select_from(table))
        .where(
            is_before(declaration.moment, spec.created_at),
            declaration.only,
            conditions(declaration, spec),
            matches(declaration, spec.query),
        )
        .order_by(*ordering(declaration, spec.query.order_by, by_day=by_day))
        .limit(limit)
    )
    return statement


def selected(declaration: Declaration, spec: ExportSpec) -> list[ColumnElement[Any]]:
    """List what is selected: each value in this format, with its flag behind it where it may hold JSON."""
    values = []
    for output in (*declaration.outputs, *declaration.needed):
        if output.value is None:
            continue
        values.append(output.nested if spec.encoding.format.nested and output.nested is not None else output.value)
        if output.kind is Kind.MAYBE_JSON:
            values.append(_flag(output.value, spec))
    return values


def surveyed(declaration: Declaration, spec: ExportSpec) -> Select[Any] | None:
    """Give the survey of the table that the rows are read from; None for rows that need none."""
    source = declaration.source
    if isinstance(source, View):
        return None if source.survey is None else source.survey(spec.project_id)
    return select_survey(declaration.rows, declaration.wide, declaration.moment, spec.project_id)


def _latest(declaration: Declaration, spec: ExportSpec, rows: Any) -> Any:
    """Have the latest versions alone in a statement that selects from the declaration's rows."""
    source = declaration.source
    if isinstance(source, View):
        return rows.add_cte(source.select(spec.project_id, spec.created_at).cte(_name(declaration.rows)))
    return rows.final(declaration.rows).prewhere(is_latest(source, declaration.rows, spec.project_id))


def _name(rows: FromClause) -> str:
    """Name the table that rows are read from: a view of that name takes its place."""
    return str(rows.element if isinstance(rows, Alias) else rows)


def _flag(value: ColumnElement[Any], spec: ExportSpec) -> ColumnElement[bool]:
    """Tell whether a cell holds JSON; formats that write it as text only need to know where it has escapes."""
    if spec.encoding.format.nested:
        return is_json(value)
    return cast(func.coalesce(contains(value, "\\u"), bind_bool(value=False)), Boolean()) & is_json(value)
