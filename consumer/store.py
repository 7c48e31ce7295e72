"""Selects exports with their latest run and reads the rows into records."""

from typing import Any

from sqlalchemy import RowMapping, Select, and_, func, select

from config.labels import Outcome
from config.tables import batch_exports, runs
from consumer.models import Job, Run


def select_jobs() -> Select[Any]:
    """Select exports, each with its latest run; read the rows with `to_job`."""
    other = runs.alias("other")
    newest = select(func.max(other.c.attempt)).where(other.c.export_id == batch_exports.c.id).scalar_subquery()
    latest = and_(runs.c.export_id == batch_exports.c.id, runs.c.attempt == newest)
    names = [column.label(f"run_{column.name}") for column in runs.c]
    return select(*batch_exports.c, *names).select_from(batch_exports.outerjoin(runs, latest))


def to_job(row: RowMapping) -> Job:
    """Read one row of `select_jobs`."""
    fields = {column.name: row[column.name] for column in batch_exports.c}
    run = None if row["run_attempt"] is None else to_run(row, "run_")
    return Job(run=run, **fields)


def to_run(row: RowMapping, prefix: str = "") -> Run:
    """Read one row of `waybill_runs`."""
    fields = {column.name: row[prefix + column.name] for column in runs.c}
    outcome = fields.pop("outcome")
    return Run(outcome=None if outcome is None else Outcome(outcome), **fields)
