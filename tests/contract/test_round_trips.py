"""One export asks the database for no more than the rules need."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, make_url

from config.labels import Outcome
from config.tables import langfuse
from consumer.claim import Claimer
from consumer.models import Claim
from consumer.outbox import relay
from runtime.database import open_database
from runtime.migrations import migrate
from tests.services.postgres import Postgres
from tests.support.attempts import ScriptedWorker
from tests.support.exports import queue
from tests.support.intake import POLICY, FakePublisher


@pytest.fixture
def engine(postgres: Postgres) -> Iterator[Engine]:
    with postgres.database() as database:
        opened = open_database(make_url(database.url).set(drivername="postgresql+psycopg"))
        langfuse.create_all(opened)
        migrate(opened)
        yield opened
        opened.dispose()


def listen(engine: Engine) -> list[str]:
    """Note everything that is asked of the database from now on: statements, and what begins and ends transactions."""
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *found: seen.append(found[2].split(None, 1)[0]))

    def begun(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            seen.append("BEGIN")

    event.listen(engine, "begin", begun)
    event.listen(engine, "commit", lambda _: seen.append("COMMIT"))
    return seen


def test_one_export_asks_for_no_more_than_this(engine: Engine, tmp_path: Path) -> None:
    worker = ScriptedWorker(engine, tmp_path / "files")
    worker.fenced = True
    queue(engine)
    claimer = Claimer(jobs=worker.jobs, policy=POLICY, worker="w", metrics=worker.metrics, now=worker.now)
    seen = listen(engine)

    claim = claimer.claim("project-1", "export-1")
    assert isinstance(claim, Claim)
    assert worker.run(claim) is Outcome.COMPLETED
    assert relay(engine, FakePublisher(), worker.now) == 1  # type: ignore[arg-type] # stands in for Kafka

    claimed = ["SELECT", "BEGIN", "SET", "UPDATE", "INSERT", "COMMIT"]
    fenced = ["BEGIN", "SET", "UPDATE", "COMMIT"]
    completed = ["BEGIN", "SET", "UPDATE", "UPDATE", "INSERT", "COMMIT"]
    relayed = ["SELECT", "BEGIN", "SET", "UPDATE", "COMMIT"]
    assert seen == [*claimed, *fenced, *completed, *relayed]
