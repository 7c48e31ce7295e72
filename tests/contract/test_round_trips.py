"""The number of database statements that one export needs."""

from pathlib import Path

from sqlalchemy import Connection, Engine, event

from config.labels import Outcome
from consumer.claim import Claimer
from consumer.models import Claim, ExportKey
from consumer.outbox import relay
from tests.support.attempts import ScriptedWorker
from tests.support.exports import queue
from tests.support.intake import POLICY, FakePublisher


def listen(engine: Engine) -> list[str]:
    """Record all statements, and the beginnings and ends of transactions, from now on."""
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *found: seen.append(found[2].split(None, 1)[0]))

    def begun(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            seen.append("BEGIN")

    event.listen(engine, "begin", begun)
    event.listen(engine, "commit", lambda _: seen.append("COMMIT"))
    return seen


def test_one_export_needs_these_statements_and_no_more(postgres_engine: Engine, tmp_path: Path) -> None:
    worker = ScriptedWorker(postgres_engine, tmp_path / "files")
    worker.fenced = True
    queue(postgres_engine)
    claimer = Claimer(jobs=worker.jobs, policy=POLICY, worker="w", metrics=worker.metrics, now=worker.now)
    seen = listen(postgres_engine)

    claim = claimer.claim(ExportKey(project_id="project-1", export_id="export-1"))
    assert isinstance(claim, Claim)
    assert worker.run(claim) is Outcome.COMPLETED
    assert relay(postgres_engine, FakePublisher(), worker.now, worker.metrics) == 1  # type: ignore[arg-type] # stands in for Kafka

    claimed = ["SELECT", "BEGIN", "SET", "UPDATE", "INSERT", "COMMIT"]
    fenced = ["BEGIN", "SET", "UPDATE", "COMMIT"]
    completed = ["BEGIN", "SET", "UPDATE", "UPDATE", "INSERT", "COMMIT"]
    relayed = ["SELECT", "BEGIN", "SET", "UPDATE", "COMMIT"]
    assert seen == [*claimed, *fenced, *completed, *relayed]
