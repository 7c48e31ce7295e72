import asyncio
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace
from typing import cast

import faust
import pytest

from runtime import http, supervise
from runtime.http import Health
from runtime.self_metrics import build_metrics
from runtime.supervise import run_every, wait_for_dependencies, wait_for_stop

STUBBORN_DAEMON = """
import asyncio, contextlib, threading
from runtime import supervise

supervise.EXIT_SECONDS = 0.1

async def ignore_cancellations():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

async def main():
    asyncio.get_running_loop().stubborn = asyncio.ensure_future(ignore_cancellations())
    threading.Thread(target=threading.Event().wait).start()
    await asyncio.sleep(0)
    print("finished", flush=True)

supervise.run_daemon(main())
"""


def test_a_timer_continues_after_errors_and_ends_when_stopped() -> None:
    async def run() -> int:
        stop, calls = asyncio.Event(), 0

        async def work() -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                stop.set()
            raise LookupError("odd")

        health = Health({})
        await asyncio.wait_for(run_every(0.01, work, name="timer", health=health, stop=stop), 30)
        assert health.stuck() == []
        return calls

    assert asyncio.run(run()) == 3


def test_a_timer_can_be_woken() -> None:
    async def run() -> None:
        stop, wake, calls = asyncio.Event(), asyncio.Event(), asyncio.Semaphore(0)

        async def work() -> None:
            calls.release()

        timer = asyncio.create_task(run_every(600, work, name="t", health=Health({}), stop=stop, wake=wake))
        await asyncio.wait_for(calls.acquire(), 30)
        wake.set()
        await asyncio.wait_for(calls.acquire(), 30)
        stop.set()
        await asyncio.wait_for(timer, 30)

    asyncio.run(run())


def test_it_waits_for_dependencies_and_logs_each_reason_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http, "KEEP_SECONDS", 0)
    monkeypatch.setattr(supervise, "POLL_SECONDS", 0.01)
    answers = iter(["no answer", "refused", "no answer", "refused", None])

    def check() -> None:
        if (problem := next(answers)) is not None:
            raise ConnectionError(problem)

    async def run() -> bool:
        return await asyncio.wait_for(wait_for_dependencies(Health({"kafka": check}), asyncio.Event()), 30)

    assert asyncio.run(run())
    assert [each.getMessage() for each in caplog.records] == [
        "waiting for kafka: no answer",
        "waiting for kafka: refused",
    ]


def test_waiting_ends_when_the_daemon_is_stopped() -> None:
    async def run() -> None:
        stop = asyncio.Event()
        stop.set()
        assert not await wait_for_dependencies(Health({}), stop)
        assert await wait_for_stop(stop, 600)
        assert not await wait_for_stop(asyncio.Event(), 0.01)

    asyncio.run(run())


class _Stubborn:
    """An app whose start and stop ignore their cancellation, as Faust's do without Kafka."""

    def __init__(self, starts: bool) -> None:
        self.should_stop, self.starts, self.let_go = False, starts, asyncio.Event()
        self.on_partitions_assigned = self.on_partitions_revoked = SimpleNamespace(connect=lambda _: None)

    async def start(self) -> None:
        if not self.starts:
            await self._ignore_cancellations()

    async def stop(self) -> None:
        await self._ignore_cancellations()

    async def _ignore_cancellations(self) -> None:
        while not self.let_go.is_set():
            with suppress(asyncio.CancelledError):
                await self.let_go.wait()


@pytest.mark.parametrize("starts", [True, False])
def test_an_app_that_ignores_its_cancellation_does_not_keep_the_daemon(
    starts: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervise, "STOP_SECONDS", 0.01)

    async def run() -> None:
        stop, app = asyncio.Event(), _Stubborn(starts)
        asyncio.get_running_loop().call_later(0.01, stop.set)
        supervised = supervise.supervise(
            lambda: cast("faust.App", app), health=Health({}), metrics=build_metrics(), stop=stop
        )
        try:
            await asyncio.wait_for(supervised, 30)
        finally:
            app.let_go.set()

    asyncio.run(run())

    assert "the Kafka consumer did not stop within 0.01 s" in caplog.messages


def test_a_daemon_ends_although_its_tasks_and_threads_do_not() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STUBBORN_DAEMON], check=False, capture_output=True, text=True, timeout=120
    )

    assert (ended.returncode, ended.stdout) == (0, "finished\n")
    assert "the process exits without them" in ended.stderr
