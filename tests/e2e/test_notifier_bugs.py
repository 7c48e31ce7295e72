"""A completion that meets a bug in the notifier becomes a dead letter, and the next email is sent."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from config.settings import load
from runtime.dead_letters import read_all
from tests.e2e.completions import add_ended_export, notifier, publish, wait_until_ended
from tests.services.stacks import Stack
from tests.support.daemons import eventually

pytestmark = pytest.mark.slow

REFUSE = {
    "sqlite": """
        CREATE TRIGGER refuse BEFORE INSERT ON waybill_notices WHEN NEW.event_id = '{}'
        BEGIN SELECT RAISE(ABORT, 'a bug'); END
    """,
    "postgresql": "ALTER TABLE waybill_notices ADD CONSTRAINT refuse CHECK (event_id <> '{}')",
}


def test_a_bug_in_one_completion_does_not_block_the_next(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    poison, good = add_ended_export(engine), add_ended_export(engine)
    with engine.begin() as connection:
        connection.execute(text(REFUSE[engine.dialect.name].format(poison.event_id)))
    with notifier(stack, tmp_path) as running:
        publish(stack, poison.encode(), good.encode())

        assert wait_until_ended(engine, good).state == "sent"
        assert running.metric("waybill_notices_total", outcome="bug") == 1
        assert running.metric("waybill_dead_letters_total", verdict="bug") == 1
        eventually(running.ready)
        assert running.get("/livez")[0] == 200
        assert [each for each in running.lines() if "IntegrityError" in str(each)]

    kept = [each for each in read_all(load(stack.environment())) if each.value == poison.encode()]
    assert [(each.why["error-class"], each.why["topic"]) for each in kept] == [
        ("bug", stack.environment()["WAYBILL_COMPLETIONS_TOPIC"])
    ]
