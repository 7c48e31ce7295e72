"""Generates sample data: seeded, realistic, of any size, with values that break careless exporters."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Engine

from embedded.sample import database, dataset_runs, observations, scores, traces
from embedded.sample.sql import Plan
from embedded.schema import Client
from runtime.database import writing

PROJECTS = ("demo", "other")
OTHER_ROWS = 1000


def fill(
    clickhouse: Client,
    engine: Engine,
    *,
    rows: int,
    projects: Sequence[str] = PROJECTS,
    seed: int = 1,
    payload_bytes: int = 1000,
) -> None:
    """Fill Langfuse's tables, which must exist and be empty.

    The first project gets exactly `rows` live traces, `trace-0000000` and so on, with about `payload_bytes` of input
    and output each, and besides them outdated versions and deleted traces. Each other project gets up to 1,000 traces
    with the same IDs and different content. The size of the other tables follows from the traces. All data is older
    than February 2025, and the same arguments generate the same data.
    """
    plans = [
        Plan(project, number, rows if number == 0 else min(rows, OTHER_ROWS), payload_bytes, seed)
        for number, project in enumerate(projects)
    ]
    for plan in plans:
        for statement in statements(plan):
            clickhouse.command(statement)
    with writing(engine) as connection:
        database.fill_shared(connection, projects)
        for plan in plans:
            database.fill_project(connection, plan)


def statements(plan: Plan) -> Iterator[str]:
    """Yield the statements that fill ClickHouse for one project."""
    if plan.rows:
        for table in (traces, observations, scores, dataset_runs):
            yield from table.statements(plan)
