import asyncio

import pytest

from runtime import http, supervise
from runtime.http import Health
from runtime.supervise import run_every, wait_for_dependencies, wait_for_stop


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
