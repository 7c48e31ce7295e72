import asyncio
import threading

import pytest
from sqlalchemy import Engine

from config.events import read_request
from consumer.drain import Drain
from tests.support.exports import NOW, job_of, queue, row_of, runs_of
from tests.support.intake import ScriptedIntake


def drain_running_export(engine: Engine, *, finish: bool) -> tuple[ScriptedIntake, list[str]]:
    """Shut down a worker that runs one export, which finishes in time or is stopped."""
    queue(engine)
    relayed: list[str] = []

    async def relay() -> None:
        relayed.append("relayed")

    async def run() -> ScriptedIntake:
        scripted, end = ScriptedIntake(engine), threading.Event()
        scripted.before_end = lambda: end.wait(30)
        await scripted.intake.start_without_event(job_of(scripted.jobs).key)
        scripted.closed.set()
        if finish:
            end.set()
        drain = Drain(
            intake=scripted.intake,
            slots=scripted.slots,
            jobs=scripted.jobs,
            publisher=scripted.publisher,  # type: ignore[arg-type] # stands in for Kafka
            relay=relay,
            requests_topic="requests",
            seconds=30 if finish else 0.01,
            now=lambda: NOW,
        )
        await drain.run()
        end.set()
        return scripted

    return asyncio.run(run()), relayed


def test_a_running_export_may_finish(engine: Engine) -> None:
    scripted, relayed = drain_running_export(engine, finish=True)

    assert (scripted.publisher.sent, relayed) == ([], ["relayed"])


def test_a_stopped_export_is_queued_again_with_a_new_request_event(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.drain.GRACE_SECONDS", 0.5)

    scripted, relayed = drain_running_export(engine, finish=False)

    assert row_of(engine)["status"] == "QUEUED"
    assert runs_of(engine)[0]["outcome"] == "released"
    (message,) = scripted.publisher.sent
    assert (message.topic, message.key) == ("requests", b"export-1")
    assert read_request(message.value).batch_export_id == "export-1"
    assert relayed == ["relayed"]
