"""Declares the columns of a trace that are aggregated from its observations, for filters and orders."""

from datetime import datetime
from functools import partial
from typing import Any

from clickhouse_connect.cc_sqlalchemy import select
from sqlalchemy import ColumnElement, Integer, Numeric, Select, String, column, func, null

from pipeline.sql.clickhouse import bind_text
from pipeline.sql.sources import Columns, Source, is_latest, observations
from pipeline.sql.usage import (
    COST_DIGITS,
    MILLISECONDS_DIGITS,
    get_total,
    seconds_between,
    sum_containing_ignoring_case,
)
from pipeline.tables.columns import Filterable, Join

# From the highest to the lowest.
LEVELS = ("ERROR", "WARNING", "DEFAULT", "DEBUG")


def total_filterables(trace_id: ColumnElement[str], source: Source = observations) -> tuple[Filterable, ...]:
    """Return the columns; `source` holds the observations, or the events that are observations."""
    join = Join("observed", trace_id, partial(_select_totals, source))

    def number(id_: str, name: str, value: str, places: int = 0) -> Filterable:
        return Filterable(id_, (name,), "number", column(value, Numeric()), join=join, places=places)

    return (
        Filterable("level", ("Level",), "stringOptions", column("observed_level", String()), join=join),
        *(
            number(f"{level.lower()}Count", f"{level.capitalize()} Level Count", f"observed_{level.lower()}")
            for level in LEVELS
        ),
        number("inputTokens", "Input Tokens", "observed_input_tokens"),
        number("outputTokens", "Output Tokens", "observed_output_tokens"),
        number("totalTokens", "Total Tokens", "observed_total_tokens"),
        number("tokens", "Tokens", "observed_total_tokens"),
        number("latency", "Latency (s)", "observed_latency", MILLISECONDS_DIGITS),
        number("inputCost", "Input Cost ($)", "observed_input_cost", COST_DIGITS),
        number("outputCost", "Output Cost ($)", "observed_output_cost", COST_DIGITS),
        number("totalCost", "Total Cost ($)", "observed_total_cost", COST_DIGITS),
    )


def _select_totals(source: Source, project_id: str, _cutoff: datetime) -> Select[Any]:
    """Aggregate the observations of each trace as they are now, like everything that is joined."""
    rows = source.table.alias("o")
    o = rows.c
    return (
        select(
            o.trace_id.label("observed_key"),
            _highest(o).label("observed_level"),
            *(func.countIf(o.level == bind_text(level)).label(f"observed_{level.lower()}") for level in LEVELS),
            func.toNullable(
                seconds_between(func.min(o.start_time), func.max(func.coalesce(o.end_time, o.start_time)))
            ).label("observed_latency"),
            *_amounts(o.usage_details, "tokens"),
            *_amounts(o.cost_details, "cost"),
        )
        .final(rows)
        .prewhere(is_latest(source, rows, project_id))
        .group_by(o.trace_id)
    )


def _highest(o: Columns) -> ColumnElement[str | None]:
    cases = [part for level in LEVELS for part in (func.countIf(o.level == bind_text(level)) > 0, bind_text(level))]
    return func.multiIf(*cases, null(), type_=String())


def _amounts(amounts: ColumnElement[Any], unit: str) -> tuple[ColumnElement[Any], ...]:
    """Sum a map over all observations; the total is null where no observation has one."""
    there = func.mapContains(amounts, bind_text("total"))
    return (
        func.sum(sum_containing_ignoring_case(amounts, "input")).label(f"observed_input_{unit}"),
        func.sum(sum_containing_ignoring_case(amounts, "output")).label(f"observed_output_{unit}"),
        func.sumOrNullIf(get_total(amounts), there, type_=Integer()).label(f"observed_total_{unit}"),
    )
