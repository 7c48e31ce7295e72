"""Compiles the selection of the rows at a position in their traces."""

from datetime import datetime
from typing import Any

from clickhouse_connect.cc_sqlalchemy import select
from sqlalchemy import Select

from pipeline.sql.named_values import is_before_cutoff
from pipeline.sql.sources import Source, is_latest


def select_at_position(
    source: Source, project_id: str, cutoff: datetime, position: int, *, from_end: bool
) -> Select[Any]:
    """Select the identities of the rows at a position, from 1, in their traces, by start, then by identity.

    All rows of a trace before the cutoff count, whatever the filters of the export.
    """
    rows = source.table.alias("placed")
    identity = rows.c[source.identity]
    keys = (rows.c.start_time, identity)
    return (
        select(identity)
        .final(rows)
        .prewhere(is_latest(source, rows, project_id))
        .where(is_before_cutoff(rows.c.start_time, cutoff))
        .order_by(rows.c.trace_id, *(key.desc() if from_end else key.asc() for key in keys))
        .limit_by([rows.c.trace_id], 1, offset=position - 1)
    )
