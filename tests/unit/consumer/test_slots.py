import asyncio
import threading
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from config.errors import Unavailable
from config.labels import Outcome
from config.metrics import Metrics
from consumer.heartbeat import Timing
from consumer.models import Claim, LeaseState
from consumer.slots import Slots
from pipeline.types import Progress
from tests.support.exports import NOW
from tests.unit.consumer.test_guards import a_job

QUICK = Timing(heartbeat=0.01, lease=0.1, stall=60)
CLAIM = Claim(job=a_job(), attempt=1, worker="worker-a", claimed_at=NOW, failures=0)


def slots_of(
    work: Callable[[Claim, Progress], Outcome | None],
    beat: Callable[[Claim, Progress], LeaseState] = lambda _, __: LeaseState.KEPT,
    size: int = 1,
    timing: Timing = QUICK,
) -> tuple[Slots, list[str], Metrics]:
    ended: list[str] = []
    metrics = Metrics(CollectorRegistry())
    made = Slots(size, work=work, extend_lease=beat, on_end=lambda: ended.append("end"), timing=timing, metrics=metrics)
    return made, ended, metrics


def stopped(_: Claim, progress: Progress) -> Outcome | None:
    """Work until told to stop."""
    told = threading.Event()
    progress.on_stop(told.set)
    assert told.wait(30)
    return None


def test_a_slot_is_taken_while_its_export_runs_and_free_afterwards() -> None:
    go = threading.Event()

    def work(_: Claim, __: Progress) -> Outcome:
        assert go.wait(30)
        return Outcome.COMPLETED

    async def run() -> None:
        slots, ended, metrics = slots_of(work)
        await slots.take()
        slots.start(CLAIM)
        waiting = asyncio.create_task(slots.take())
        await asyncio.sleep(0)
        assert (slots.free, waiting.done(), ended) == (0, False, [])
        assert metrics.registry.get_sample_value("waybill_exports_running") == 1
        go.set()
        await asyncio.wait_for(waiting, 30)
        assert ended == ["end"]
        assert metrics.registry.get_sample_value("waybill_exports_running") == 0
        slots.give_back()
        assert slots.free == 1

    asyncio.run(run())


def test_an_export_is_stopped_when_its_lease_is_cancelled_or_lost() -> None:
    for hold in (LeaseState.CANCELLED, LeaseState.LOST):
        asyncio.run(_stops(lambda _, __, hold=hold: hold))  # type: ignore[misc] # a default binds the loop's value


def test_an_export_without_progress_is_stopped_and_a_slow_one_is_not() -> None:
    told: list[bool] = []

    def hang(claim: Claim, progress: Progress) -> Outcome | None:
        outcome = stopped(claim, progress)
        told.append(progress.stalled)
        return outcome

    def slow(_: Claim, progress: Progress) -> Outcome | None:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            progress.rows += 1
            time.sleep(0.01)
        told.append(progress.stopped)
        return None

    async def run(work: Callable[[Claim, Progress], Outcome | None]) -> None:
        slots, ended, _ = slots_of(work, timing=Timing(heartbeat=0.01, lease=60, stall=0.25))
        await slots.take()
        slots.start(CLAIM)
        await asyncio.wait_for(slots.take(), 30)
        assert ended == ["end"]

    asyncio.run(run(hang))
    asyncio.run(run(slow))
    assert told == [True, False]


def test_an_export_is_stopped_when_no_heartbeat_succeeds_for_a_lease() -> None:
    def away(_: Claim, __: Progress) -> LeaseState:
        raise Unavailable("the database is away")

    asyncio.run(_stops(away))


def test_an_export_is_stopped_when_a_heartbeat_hangs_for_a_lease() -> None:
    hang = threading.Event()

    def hangs(_: Claim, __: Progress) -> LeaseState:
        hang.wait(30)
        return LeaseState.KEPT

    asyncio.run(_stops(hangs))
    hang.set()


async def _stops(beat: Callable[[Claim, Progress], LeaseState]) -> None:
    slots, ended, _ = slots_of(stopped, beat)
    await slots.take()
    slots.start(CLAIM)
    await asyncio.wait_for(slots.take(), 30)
    assert ended == ["end"]


def test_a_few_failed_heartbeats_do_not_stop_an_export() -> None:
    beats: list[int] = []
    enough = threading.Event()

    def flaky(_: Claim, progress: Progress) -> LeaseState:
        beats.append(1)
        if len(beats) > 6:
            assert not progress.stopped
            enough.set()
        if len(beats) % 2:
            raise Unavailable("a hiccup")
        return LeaseState.KEPT

    def work(_: Claim, __: Progress) -> Outcome:
        assert enough.wait(30)
        return Outcome.COMPLETED

    async def run() -> None:
        slots, _, __ = slots_of(work, flaky)
        await slots.take()
        slots.start(CLAIM)
        await asyncio.wait_for(slots.take(), 30)

    asyncio.run(run())


def test_draining_waits_and_then_stops_the_remaining_exports() -> None:
    async def run() -> None:
        slots, ended, _ = slots_of(stopped, size=2)
        for _ in range(2):
            await slots.take()
            slots.start(CLAIM)
        assert await slots.drain(0.05, 30) == [CLAIM, CLAIM]
        await asyncio.sleep(0)
        assert ended == ["end", "end"]
        assert await slots.drain(0.05, 30) == []

    asyncio.run(run())


def test_a_hanging_thread_does_not_block_the_shutdown() -> None:
    hang = threading.Event()

    def hangs(_: Claim, __: Progress) -> None:
        hang.wait(30)

    async def run() -> None:
        slots, _, __ = slots_of(hangs)
        await slots.take()
        slots.start(CLAIM)
        assert await slots.drain(0.01, 0.01) == [CLAIM]
        hang.set()

    asyncio.run(run())
