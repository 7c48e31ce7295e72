import asyncio
import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from config.labels import Outcome
from config.metrics import Metrics
from consumer.heartbeat import Timing
from consumer.models import Claim, LeaseState
from consumer.slots import Slots
from pipeline.progress import Progress
from tests.support.exports import NOW
from tests.unit.consumer.test_guards import a_job

TIMING = Timing(heartbeat=0.01, lease=0.1, stall=60)
CLAIM = Claim(job=a_job(), attempt=1, worker="worker-a", claimed_at=NOW, failures=0)


def slots_of(
    work: Callable[[Claim, Progress], Outcome | None],
    extend_lease: Callable[[Claim, Progress], LeaseState] = lambda _, __: LeaseState.KEPT,
    size: int = 1,
) -> tuple[Slots, list[str], Metrics]:
    ended: list[str] = []
    metrics = Metrics(CollectorRegistry())
    made = Slots(
        size, work=work, extend_lease=extend_lease, on_end=lambda: ended.append("end"), timing=TIMING, metrics=metrics
    )
    return made, ended, metrics


def wait_for_stop(_: Claim, progress: Progress) -> Outcome | None:
    stop = threading.Event()
    progress.on_stop(stop.set)
    assert stop.wait(30)
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


def test_an_export_is_stopped_by_its_heartbeat_and_its_slot_is_free_again() -> None:
    async def run() -> None:
        slots, ended, _ = slots_of(wait_for_stop, lambda _, __: LeaseState.LOST)
        await slots.take()
        slots.start(CLAIM)
        await asyncio.wait_for(slots.take(), 30)
        assert ended == ["end"]

    asyncio.run(run())


def test_draining_waits_and_then_stops_the_remaining_exports() -> None:
    async def run() -> None:
        slots, ended, _ = slots_of(wait_for_stop, size=2)
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
