"""Makes sample data: seeded, realistic, with the values that break careless exporters, any number of rows."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Engine

from embedded.sample import observations, relational, runs, scores, traces
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
    """Fill the application's empty tables, which must be there.

    The first project gets exactly `rows` traces that an export must hold, called `trace-0000000` and so on, with
    about `payload_bytes` of input and output each, and besides them outdated versions and deleted traces; the other
    projects get up to 1,000 with the same ids and other contents. Everything else grows with the traces. All of it
    is older than February 2025, and the same for the same arguments.
    """
    plans = [
        Plan(project, number, rows if number == 0 else min(rows, OTHER_ROWS), payload_bytes, seed)
        for number, project in enumerate(projects)
    ]
    for plan in plans:
        for statement in statements(plan):
            clickhouse.command(statement)
    with writing(engine) as connection:
        relational.fill_shared(connection, projects)
        for plan in plans:
            relational.fill_project(connection, plan)


def statements(plan: Plan) -> Iterator[str]:
    """Yield what fills ClickHouse for one project, statement by statement."""
    if plan.rows:
        for table in (traces, observations, scores, runs):
            yield from table.statements(plan)
