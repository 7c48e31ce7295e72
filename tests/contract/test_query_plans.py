"""The periodic statements read no large table from end to end."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, Engine, event, make_url

from config.labels import Channel
from config.metrics import Metrics
from config.tables import langfuse
from consumer.cleanup import Cleanup
from consumer.job_store import Jobs
from consumer.metrics import measure_queue
from consumer.operators.statements import read_exports
from consumer.outbox import is_full, relay
from consumer.queries import list_due, list_orphans, list_ownerless
from notify.catch_up import LOOK_BACK, find_published
from notify.notices import Notices
from pipeline.storage.local import LocalStorage
from runtime.database import open_database, reading_briefly
from runtime.migrations import migrate
from tests.services.postgres import Postgres
from tests.support.exports import CLAIM_POLICY, NOW
from tests.support.full_tables import fill
from tests.support.intake import FakePublisher

pytestmark = pytest.mark.slow

SIZE = int(os.environ.get("PLAN_ROWS") or 1_000_000)
TRIES = 3
MILLISECONDS = float(os.environ.get("PLAN_MILLISECONDS") or "inf")
"""What a statement may take: 20 ms are enough on a quiet machine. By default only the plans are checked."""

BIG = {"batch_exports", "waybill_runs", "waybill_notices", "waybill_outbox"}


@contextmanager
def recording(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements of the block, with their parameters."""
    seen: list[tuple[str, Any]] = []

    def record(_: Connection, __: Any, sql: str, values: Any, *___: Any) -> None:
        if sql.split(maxsplit=1)[0] in {"SELECT", "UPDATE", "DELETE", "SET"}:
            seen.append((sql, values))

    event.listen(engine, "before_cursor_execute", record)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", record)


@pytest.fixture(scope="module")
def engine(postgres: Postgres) -> Iterator[Engine]:
    """A database with a million rows in each table."""
    with postgres.database() as database:
        opened = open_database(make_url(database.url).set(drivername="postgresql+psycopg"))
        langfuse.create_all(opened)
        migrate(opened)
        fill(opened, SIZE, NOW)
        yield opened
        opened.dispose()


def due(slots: int, project_slots: int) -> Callable[[Engine, Path], object]:
    return lambda engine, _: list_due(
        engine,
        now=NOW,
        unseen_for=timedelta(seconds=30),
        not_before=NOW - timedelta(days=30),
        project_slots=project_slots,
        limit=slots,
    )


def notices(engine: Engine) -> Notices:
    hour = timedelta(hours=1)
    return Notices(engine, retry_for=24 * hour, first_delay=timedelta(seconds=5), lease=timedelta(minutes=1))


def cleanup(engine: Engine, folder: Path) -> Cleanup:
    return Cleanup(
        jobs=Jobs(engine, CLAIM_POLICY),
        storage=LocalStorage(folder),
        now=lambda: NOW,
        lease=timedelta(minutes=1),
        prefix="",
        delete_expired=True,
        link_lifetime=timedelta(hours=24),
        history=timedelta(days=346),
    )


def publish_all(engine: Engine, _: Path) -> None:
    publisher: Any = FakePublisher()
    relay(engine, publisher, lambda: NOW, Metrics(CollectorRegistry()))


def measure(engine: Engine, _: Path) -> None:
    not_before: datetime = NOW - timedelta(days=30)
    measure_queue(engine, Metrics(CollectorRegistry()), now=NOW, not_before=not_before)


def look(engine: Engine, _: Path) -> None:
    with reading_briefly(engine, 60) as connection:
        read_exports(connection)


PERIODIC: dict[str, Callable[[Engine, Path], object]] = {
    "exports that are due, for 3 slots": due(23, 0),
    "exports that are due, for 256 slots": due(276, 0),
    "exports that are due, with a limit for each project": due(28, 2),
    "orphans": lambda engine, _: list_orphans(engine, now=NOW, limit=20),
    "runs of deleted exports": lambda engine, _: list_ownerless(engine, now=NOW, limit=20),
    "gauges of the consumer": measure,
    "events that wait": lambda engine, _: is_full(engine),
    "the relay": publish_all,
    "published completions": lambda engine, _: list(
        find_published(engine, "export-completions", since=NOW - LOOK_BACK, now=NOW)
    ),
    "emails that are due": lambda engine, _: notices(engine).find_due(NOW, Channel.MAIL, limit=4),
    "messages of a webhook that are due": lambda engine, _: notices(engine).find_due(NOW, Channel.WEBHOOK, limit=4),
    "the next notice": lambda engine, _: notices(engine).next_due(),
    "gauges of the notifier": lambda engine, _: notices(engine).count_open(),
    "runs and events that are pruned": lambda engine, folder: cleanup(engine, folder).prune(),
    "notices that are pruned": lambda engine, _: notices(engine).prune(NOW - timedelta(days=346), limit=1000),
    "the operators' page": look,
    "expired files": lambda engine, folder: cleanup(engine, folder).delete_files(),
}


@pytest.mark.parametrize("name", PERIODIC)
def test_a_periodic_statement_reads_no_large_table_from_end_to_end(engine: Engine, tmp_path: Path, name: str) -> None:
    with recording(engine) as seen:
        PERIODIC[name](engine, tmp_path)

    settings = [sql for sql, _ in seen if sql.startswith("SET LOCAL max_parallel")]
    # A SELECT with the same text and other values may have another plan.
    explained = {(sql, repr(values)): values for sql, values in seen if sql.startswith("SELECT")}
    explained |= {(sql, ""): values for sql, values in seen if sql.startswith(("UPDATE", "DELETE"))}
    assert explained
    for (sql, _), values in explained.items():
        plans = [explain(engine, sql, values, settings) for _ in range(TRIES)]
        assert list(scans(plans[0]["Plan"])) == [], sql
        milliseconds = min(plan["Execution Time"] for plan in plans)
        print(f"{name}: {milliseconds:.1f} ms")
        assert milliseconds < MILLISECONDS, json.dumps(plans[-1], indent=1)


def explain(engine: Engine, sql: str, values: Any, settings: list[str]) -> dict[str, Any]:
    """Execute a statement, undo it, and return its plan with the time that it took on the server."""
    with engine.connect() as connection:
        for setting in settings:
            connection.exec_driver_sql(setting)
        plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values).scalar_one()
        connection.rollback()
    parsed: list[dict[str, Any]] = json.loads(plan) if isinstance(plan, str) else plan
    return parsed[0]


def scans(plan: dict[str, Any]) -> Iterator[str]:
    """The large tables that a plan reads sequentially."""
    if plan["Node Type"] == "Seq Scan" and plan.get("Relation Name") in BIG:
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from scans(part)
