"""An email that may have been sent is counted as unanswered, and sent again a lease later at the earliest."""

import asyncio
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.e2e.completions import add_ended_export, notifier, publish, row, wait_until_ended
from tests.services.stacks import Stack
from tests.support.daemons import Daemon, eventually
from tests.support.notices import MailServer, mail_server

pytestmark = pytest.mark.slow

LEASE = 2.0
SHORT = {"WAYBILL_LEASE_SECONDS": str(LEASE), "WAYBILL_HEARTBEAT_SECONDS": "0.5", "WAYBILL_DRAIN_SECONDS": "1"}


def unanswered(one: Daemon) -> float:
    return one.metric("waybill_notices_total", outcome="unanswered")


def arrivals(server: MailServer) -> list[float]:
    """Make the server note when each email arrives."""
    times: list[float] = []

    async def note() -> None:
        times.append(time.monotonic())

    server.answer_data = note
    return times


def test_sigkill_after_the_email_was_sent_is_counted(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    event = add_ended_export(engine)
    with mail_server() as server:
        settings = SHORT | {"SMTP_CONNECTION_URL": server.url}
        with notifier(stack, tmp_path, **settings) as first:
            server.before_answer = lambda _: first.process.kill()
            publish(stack, event.encode())
            first.process.wait(60)
            killed = time.monotonic()
        server.before_answer = None
        times = arrivals(server)
        with notifier(stack, tmp_path, **settings) as second:
            assert wait_until_ended(engine, event).state == "sent"

            assert unanswered(second) == 1
            assert [each for each in second.lines() if each.get("outcome") == "unanswered"]

    assert len(server.taken) == 2
    assert times[0] - killed > LEASE * 1.5  # until the lease ends, and one more


def test_sigkill_before_the_email_was_sent_is_not_counted(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    event = add_ended_export(engine)
    with mail_server() as server:
        settings = SHORT | {"SMTP_CONNECTION_URL": server.url}
        with notifier(stack, tmp_path, **settings) as first:
            server.before_recipient = first.process.kill
            publish(stack, event.encode())
            first.process.wait(60)
        server.before_recipient = None
        with notifier(stack, tmp_path, **settings) as second:
            assert wait_until_ended(engine, event).state == "sent"

            assert unanswered(second) == 0

    assert len(server.taken) == 1


def test_sigterm_while_the_server_needs_longer_than_the_drain_time_is_counted(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    event, go_on = add_ended_export(engine), threading.Event()
    with mail_server() as server:
        settings = SHORT | {"SMTP_CONNECTION_URL": server.url}

        async def wait() -> None:
            await asyncio.to_thread(go_on.wait, 60)

        server.answer_data = wait
        with notifier(stack, tmp_path, **settings) as first:
            publish(stack, event.encode())
            eventually(lambda: server.taken, what="the email arrives")
            first.process.terminate()
            assert first.process.wait(60) == 0
        go_on.set()
        with notifier(stack, tmp_path, **settings) as second:
            assert wait_until_ended(engine, event).state == "sent"

            assert unanswered(second) == 1

    assert len(server.taken) == 2


@pytest.mark.parametrize("seconds", [-120, 120])
def test_a_notifier_whose_clock_is_wrong_takes_no_email_from_another(
    stack: Stack, engine: Engine, tmp_path: Path, seconds: int
) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no clock of its own")
    event, later, go_on = add_ended_export(engine), add_ended_export(engine), threading.Event()
    with mail_server() as server:
        settings = {"SMTP_CONNECTION_URL": server.url, "WAYBILL_SWEEP_SECONDS": "0.2"}

        async def wait() -> None:
            await asyncio.to_thread(go_on.wait, 60)

        server.answer_data = wait
        launcher = [sys.executable, "-m", "tests.faults.skewed_daemon", "notify", str(seconds)]
        with notifier(stack, tmp_path, **settings) as right:
            publish(stack, event.encode())
            eventually(lambda: server.taken, what="the email arrives")
            with notifier(stack, tmp_path, launcher=launcher, **settings) as wrong:
                eventually(lambda: wrong.metric("waybill_notices_waiting") == 1, what="the other notifier has looked")
                publish(stack, later.encode())
                eventually(lambda: len(server.taken) > 1, what="the second email arrives")
                go_on.set()
                assert wait_until_ended(engine, event).state == "sent"
                assert wait_until_ended(engine, later).state == "sent"

                assert unanswered(right) + unanswered(wrong) == 0

    assert len(server.taken) == 2
    kept = row(engine, event)
    assert kept is not None
    assert kept.attempts == 1
