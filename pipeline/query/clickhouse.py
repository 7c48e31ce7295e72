"""Compiles the statements of an export of a ClickHouse table."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, TypeAlias

from clickhouse_connect.cc_sqlalchemy import select
from sqlalchemy import Alias, Boolean, ColumnElement, FromClause, Select, cast, func

from pipeline import request as stored
from pipeline.query.filters import filter_condition, member_condition
from pipeline.query.resolve_columns import ResolvedOrder, ResolvedQuery, resolve_order
from pipeline.query.search import search_condition
from pipeline.spec import ExportSpec
from pipeline.sql import scores, sources
from pipeline.sql.clickhouse import bind_bool, bind_number, contains, contains_ignoring_case, is_json
from pipeline.sql.events import null_if_empty
from pipeline.sql.named_values import is_before_cutoff
from pipeline.sql.scores import ScoreLevel
from pipeline.sql.sources import IsLatest, View, is_latest
from pipeline.tables import comments
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.columns import AnyFilterable, CommentsFilterable, ExternalTable, Filterable, Join
from pipeline.types import JSON_FLAG, Kind

Resolved: TypeAlias = ResolvedQuery[AnyFilterable]


def select_rows(  # noqa: PLR0913 (what the query asks for, and what the survey found)
    table: ClickHouseTable,
    query: Resolved,
    spec: ExportSpec,
    score_names: list[str],
    *,
    by_day: bool = True,
    latest: IsLatest = is_latest,
    only_scores_of_rows: bool = False,
) -> Select[Any]:
    """Select the rows: the `read_columns` in their order, then the rows' scores if there are names of scores.

    With a row limit, one row more is selected: it shows whether the limit cut off any. `by_day` is what the survey
    found; `latest` finds the latest versions of the rows and their scores. With `only_scores_of_rows` no other scores
    are read, which takes less memory where filters leave few rows, and more time. Raises Rejected for a search that the
    table doesn't support.
    """
    values = list(read_columns(table, spec).values())
    joined: Any = _join(table.rows, _joins(table, query), spec)
    if score_names and table.scores:
        levels = _limit_levels(table, query, spec) if only_scores_of_rows else table.scores
        joined, listed = scores.join_scores(joined, spec.project_id, spec.created_at, levels, score_names, latest)
        values.append(listed)
    columns = [value.label(f"c{place}") for place, value in enumerate(values)]
    return _select(table, query, spec, select(*columns).select_from(joined), by_day=by_day, latest=latest)


def _limit_levels(table: ClickHouseTable, query: Resolved, spec: ExportSpec) -> tuple[ScoreLevel, ...]:
    """Return the levels of scores, limited to the scores of the rows that filters and searches leave.

    A view is computed once for the statement, so its rows can't be selected again.
    """
    if isinstance(table.source, View) or not (query.filters or spec.query.search_query):
        return table.scores
    joined: Any = _join(table.rows, _joins(table, query), spec)

    def select_owners(level: ScoreLevel) -> Select[Any]:
        keys: Any = select(*level.key).select_from(joined)
        return _restrict(table, query, spec, keys).correlate(None)

    return tuple(replace(level, owners=select_owners(level)) for level in table.scores)


def select_large_row(table: ClickHouseTable, query: Resolved, spec: ExportSpec) -> Select[Any]:
    """Select the id of one of the rows of `select_rows` that are larger than the rows of an export may be."""
    columns = (table.identity.label("large_id"), sources.measure(table.wide).label("large_bytes"))
    joined: Any = _join(table.rows, _joins(table, query), spec)
    selected = _select(table, query, spec, select(*columns).select_from(joined), by_day=True)
    rows = selected.limit(spec.output.row_limit).subquery("rows")
    return select(rows.c.large_id).where(rows.c.large_bytes > bind_number(spec.output.row_bytes)).limit(1)


def _select(
    table: ClickHouseTable,
    query: Resolved,
    spec: ExportSpec,
    statement: Select[Any],
    *,
    by_day: bool,
    latest: IsLatest = is_latest,
) -> Select[Any]:
    """Restrict a statement to the rows that the spec asks for, in their order, and to the row limit and one more."""
    selected: Select[Any] = (
        _restrict(table, query, spec, statement, latest)
        .order_by(*_order_by(table, query.order, by_day=by_day))
        .limit(None if spec.output.row_limit is None else spec.output.row_limit + 1)
    )
    return selected


def _restrict(
    table: ClickHouseTable, query: Resolved, spec: ExportSpec, statement: Select[Any], latest: IsLatest = is_latest
) -> Select[Any]:
    """Restrict a statement to the rows that the spec asks for."""
    restricted: Select[Any] = _select_latest(table, query, spec, statement, latest).where(
        is_before_cutoff(table.moment, spec.created_at),
        table.only,
        filter_condition(query, spec),
        search_condition(table, spec.query, contains_ignoring_case),
    )
    return restricted


def list_read_names(table: ClickHouseTable) -> list[str]:
    """Return the names of `read_columns`, without making their values."""
    read = [output for output in (*table.outputs, *table.enricher_inputs) if output.value is not None]
    names = ([each.name, *([f"{each.name}{JSON_FLAG}"] if each.kind is Kind.MAYBE_JSON else [])] for each in read)
    return list(dict.fromkeys(chain.from_iterable(names)))


def read_columns(table: ClickHouseTable, spec: ExportSpec) -> dict[str, ColumnElement[Any]]:
    """Return the values that are read, by name; a value that may hold JSON is followed by its flag."""
    values, nested = {}, spec.encoding.format.nested
    for output in (*table.outputs, *table.enricher_inputs):
        if output.value is None:
            continue
        values[output.name] = output.nested if nested and output.nested is not None else output.value
        if output.kind is Kind.MAYBE_JSON:
            values[f"{output.name}{JSON_FLAG}"] = _json_flag(output.value, spec)
    return values


def external_tables(table: ClickHouseTable, query: Resolved) -> list[ExternalTable]:
    """Return the tables that must be sent along with the statement of `select_rows`."""
    tables = [join.external for join in _joins(table, query) if join.external is not None]
    for place, each in enumerate(query.filters):
        if isinstance(each.column, CommentsFilterable) and isinstance(
            each.filter, stored.StringFilter | stored.StringOptionsFilter | stored.NullFilter
        ):
            tables.append(comments.external_table(each.column, each.filter, place))
    return tables


def needs_survey(table: ClickHouseTable) -> bool:
    """Return whether anything must be known of the project before the rows are read."""
    return not isinstance(table.source, View) or table.source.survey is not None or bool(table.scores)


def select_survey(table: ClickHouseTable, spec: ExportSpec) -> Select[Any]:
    """Select what must be known of the project before the rows are read, in one row.

    It has the columns of `pipeline.sql.sources.select_survey`, except for a view that needs none of them, and `names`
    for a table with scores.
    """
    source = table.source
    if not isinstance(source, View):
        selected = sources.select_survey(table.rows, table.wide, table.moment, spec.project_id)
    elif source.survey is not None:
        selected = source.survey(spec.project_id, [str(each.key) for each in table.wide])
    else:
        selected = select()
    names = [scores.collect_names(spec.project_id, spec.created_at).label("names")] if table.scores else []
    return selected.add_columns(*names)


def _order_by(table: ClickHouseTable, order: ResolvedOrder | None, *, by_day: bool) -> tuple[ColumnElement[Any], ...]:
    """Return the query's order, else the table's default, else its own; it ends in the identity, and nulls come last.

    `by_day`: the days of all rows are in the range in which they sort by time, so the server can read in their order.
    """
    if order is None:
        if table.default_order is None:
            return table.order
        order = resolve_order(table, table.default_order)
    column = order.column
    value = null_if_empty(column.value) if column.empty_is_null else column.value
    keys = (value,) if column.day is None or not by_day else (column.day, value)
    if order.direction == "ASC":
        return (*(key.asc().nulls_last() for key in keys), table.identity)
    return (*(key.desc().nulls_last() for key in keys), table.identity)


def _joins(table: ClickHouseTable, query: Resolved) -> Iterable[Join]:
    """Return what outputs, searches, filters and the order are joined from, each once."""
    return {join.name: join for join in _all_joins(table, query) if join is not None}.values()


def _all_joins(table: ClickHouseTable, query: Resolved) -> Iterator[Join | None]:
    yield from (output.join for output in (*table.outputs, *table.enricher_inputs))
    yield from table.search_joins
    yield from (each.column.join for each in query.filters if isinstance(each.column, Filterable))
    if query.order is not None:
        yield query.order.column.join


def _join(rows: Any, joins: Iterable[Join], spec: ExportSpec) -> Any:
    for each in joins:
        other = each.rows(spec.project_id, spec.created_at).subquery(each.name)
        key: ColumnElement[Any] = other.c[f"{each.name}_key"]
        rows = rows.outerjoin(other, key == each.on)
    return rows


def _select_latest(table: ClickHouseTable, query: Resolved, spec: ExportSpec, statement: Any, latest: IsLatest) -> Any:
    """Restrict a statement on the table's rows to their latest versions."""
    source = table.source
    if isinstance(source, View):
        view = source.select(spec.project_id, member_condition(query, spec))
        return statement.add_cte(view.cte(_name(table.rows)))
    return statement.final(table.rows).prewhere(latest(source, table.rows, spec.project_id))


def _name(rows: FromClause) -> str:
    """Return the name of the table that rows are read from, which a view of the same name replaces."""
    return str(rows.element if isinstance(rows, Alias) else rows)


def _json_flag(value: ColumnElement[Any], spec: ExportSpec) -> ColumnElement[bool]:
    """Return whether a cell holds JSON; for formats that write it as text, only where it also has escapes."""
    if spec.encoding.format.nested:
        return is_json(value)
    return cast(func.coalesce(contains(value, "\\u"), bind_bool(value=False)), Boolean()) & is_json(value)
