"""One row with a value that can't be loaded stops nothing, and ends with a reason; on SQLite and on PostgreSQL."""

import asyncio
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Engine, delete, make_url, select

from config.labels import Failure, Outcome
from config.tables import batch_exports, langfuse, outbox, runs
from consumer.metrics import measure_queue
from consumer.models import Claim
from consumer.queries import list_jobs
from consumer.sweeper import Sweeper
from pipeline.progress import Progress
from runtime.clock import DatabaseClock
from runtime.database import open_database
from runtime.migrations import migrate
from tests.support.attempts import ScriptedWorker
from tests.support.exports import NOW, after, claimed, queue
from tests.support.extremes import extremes, write
from tests.support.intake import POLICY, ScriptedIntake

SWEEPS = 5
OPEN = {"QUEUED", "PROCESSING"}
RUN_COLUMNS = [each for each in runs.c if each.name != "export_id"]


class RunningIntake(ScriptedIntake):
    """An intake whose exports run to their outcome."""

    def __init__(self, worker: ScriptedWorker) -> None:
        super().__init__(worker.engine)
        self._worker = worker
        self.intake = replace(self.intake, claimer=replace(self.intake.claimer, now=worker.now))

    def _work(self, claim: Claim, _: Progress) -> Outcome:
        return self._worker.run(claim) or Outcome.LOST


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One database for all values, because there are hundreds of them."""
    with ExitStack() as opened:
        if request.param == "postgresql":
            url = opened.enter_context(request.getfixturevalue("postgres").database()).url
            made = open_database(make_url(url).set(drivername="postgresql+psycopg"))
        else:
            made = open_database(make_url(f"sqlite:///{tmp_path_factory.mktemp('poison')}/waybill.db"))
        langfuse.create_all(made)
        migrate(made)
        opened.callback(made.dispose)
        yield made


@pytest.fixture
def worker(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedWorker:
    monkeypatch.setattr("tests.support.intake.SLOTS", 4)
    with engine.begin() as connection:
        for table in (batch_exports, runs, outbox):
            connection.execute(delete(table))
    return ScriptedWorker(engine, tmp_path / "files")


def sweep(worker: ScriptedWorker) -> None:
    """Sweep until no export is left to start, at most SWEEPS times, a minute between."""

    async def run() -> None:
        scripted = RunningIntake(worker)
        sweeper = Sweeper(
            context=worker.context,
            intake=scripted.intake,
            clock=DatabaseClock(worker.engine),
            policy=POLICY,
            project_slots=5,
            unseen_for=timedelta(seconds=30),
        )
        for _ in range(SWEEPS):
            worker.time += timedelta(minutes=1)
            await sweeper.sweep()
            await scripted.slots.drain(30, 0)
            measure_queue(worker.engine, worker.metrics, now=worker.time, not_before=NOW - timedelta(days=30))
            if not any(status in OPEN for _, status, _ in rows(worker.engine)):
                return

    asyncio.run(run())


def rows(engine: Engine) -> list[tuple[str, str, str | None]]:
    """The user, the status and the reason of every row; `user_id` is the number of the value."""
    columns = (batch_exports.c.user_id, batch_exports.c.status, batch_exports.c.log)
    with engine.connect() as connection:
        return [(user, status, log) for user, status, log in connection.execute(select(*columns))]


def check(worker: ScriptedWorker, values: dict[str, Any], column: Column[Any]) -> None:
    """Sweep with a good export after the damaged ones, and check that it was run and that each of them has ended."""
    queue(worker.engine, "good", user_id="good", created_at=NOW + timedelta(seconds=1))
    sweep(worker)
    problems = [
        f"{column} = {shorten(values.get(user, user))} is {status[:20]!r} with the reason {log!r}"
        for user, status, log in rows(worker.engine)
        if status in OPEN or (status == "FAILED" and not log) or (user == "good" and status != "COMPLETED")
    ]
    assert not problems, "\n".join(problems)
    assert len(list_jobs(worker.engine)) == len(rows(worker.engine))


def shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:56]}… ({len(text)})"


def put_queued(worker: ScriptedWorker, export_id: str, user: str) -> None:
    queue(worker.engine, export_id, user_id=user)


def put_retried(worker: ScriptedWorker, export_id: str, user: str) -> None:
    queue(worker.engine, export_id, user_id=user)
    claim = claimed(worker.jobs, export_id=export_id)
    worker.jobs.postpone(claim, Failure.UNAVAILABLE, error="x", until=after(5), now=after(1))


def put_dead(worker: ScriptedWorker, export_id: str, user: str) -> None:
    queue(worker.engine, export_id, user_id=user)
    claimed(worker.jobs, export_id=export_id)


Put = Callable[[ScriptedWorker, str, str], None]


@pytest.mark.parametrize("put", [put_queued, put_dead])
@pytest.mark.parametrize("column", batch_exports.c, ids=lambda column: column.name)
def test_extreme_values_of_a_row_stop_no_sweep_and_the_row_ends(
    worker: ScriptedWorker, column: Column[Any], put: Put
) -> None:
    values = {}
    for number, value in enumerate(extremes(worker.engine, batch_exports, column)):
        name = f"bad-{number}"
        put(worker, name, name)
        if write(worker.engine, column, value, user_id=name) and column.name != "user_id":
            values[name] = value
            if column.name in {"id", "project_id"}:
                of_run = runs.c["export_id" if column.name == "id" else "project_id"]
                write(worker.engine, of_run, value, export_id=name)

    check(worker, values, column)


@pytest.mark.parametrize("put", [put_retried, put_dead])
@pytest.mark.parametrize("column", RUN_COLUMNS, ids=lambda column: column.name)
def test_extreme_values_of_a_run_stop_no_sweep_and_the_row_ends(
    worker: ScriptedWorker, column: Column[Any], put: Put
) -> None:
    values = {}
    for number, value in enumerate(extremes(worker.engine, runs, column)):
        name = f"bad-{number}"
        put(worker, name, name)
        if write(worker.engine, column, value, export_id=name):
            values[name] = value

    check(worker, values, column)


def test_a_query_that_would_fill_the_memory_is_not_read_and_the_row_ends(worker: ScriptedWorker) -> None:
    text = '{"tableName": "traces", "x": [' + "{}," * 5_000_000 + "{}]}"  # 350 MB of objects
    put_queued(worker, "bad", "bad")
    assert write(worker.engine, batch_exports.c["query"], text, user_id="bad")

    tracemalloc.start()
    try:
        check(worker, {"bad": text}, batch_exports.c["query"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    (reason,) = (log for user, _, log in rows(worker.engine) if user == "bad")
    assert reason is not None
    assert "query has more than 8,000,000 characters" in reason
    assert peak < 100 << 20
