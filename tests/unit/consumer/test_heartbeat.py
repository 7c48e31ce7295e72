import asyncio
import threading
from collections.abc import Callable

import pytest

from config.errors import Unavailable
from consumer.heartbeat import Timing, keep_alive
from consumer.models import Claim, LeaseState
from pipeline.progress import Progress
from tests.support.exports import NOW
from tests.unit.consumer.test_guards import a_job

CLAIM = Claim(job=a_job(), attempt=1, worker="worker-a", claimed_at=NOW, failures=0)
SHORT_LEASE = Timing(heartbeat=0.01, lease=0.1, stall=60)
SHORT_STALL = Timing(heartbeat=0.01, lease=60, stall=0.25)


def keep_until_stopped(extend_lease: Callable[[Claim, Progress], LeaseState], timing: Timing = SHORT_LEASE) -> Progress:
    """Keep a claim alive until its export is stopped."""

    async def run() -> Progress:
        progress = Progress()
        await asyncio.wait_for(keep_alive(CLAIM, progress, extend_lease, timing), 30)
        return progress

    return asyncio.run(run())


@pytest.mark.parametrize("state", [LeaseState.CANCELLED, LeaseState.LOST])
def test_an_export_is_stopped_when_its_lease_is_cancelled_or_lost(state: LeaseState) -> None:
    progress = keep_until_stopped(lambda _, __: state)

    assert (progress.stopped, progress.stalled) == (True, False)


def test_an_export_is_stopped_when_no_heartbeat_succeeds_for_a_lease() -> None:
    def fail(_: Claim, __: Progress) -> LeaseState:
        raise Unavailable("the database is unavailable")

    assert keep_until_stopped(fail).stopped


def test_an_export_is_stopped_when_a_heartbeat_hangs_for_a_lease() -> None:
    end = threading.Event()

    def hang(_: Claim, __: Progress) -> LeaseState:
        end.wait(30)
        return LeaseState.KEPT

    assert keep_until_stopped(hang).stopped
    end.set()


def test_an_export_without_progress_is_stopped_as_stalled() -> None:
    assert keep_until_stopped(lambda _, __: LeaseState.KEPT, SHORT_STALL).stalled


def test_a_slow_export_is_not_stopped() -> None:
    enough = threading.Event()

    def extend_lease(_: Claim, progress: Progress) -> LeaseState:
        progress.rows += 1
        if progress.rows == 50:
            enough.set()
        return LeaseState.KEPT

    assert runs_through(extend_lease, enough, SHORT_STALL)


def test_a_few_failed_heartbeats_do_not_stop_an_export() -> None:
    heartbeats: list[int] = []
    enough = threading.Event()

    def extend_lease(_: Claim, __: Progress) -> LeaseState:
        heartbeats.append(1)
        if len(heartbeats) > 6:
            enough.set()
        if len(heartbeats) % 2:
            raise Unavailable("the database is unavailable")
        return LeaseState.KEPT

    assert runs_through(extend_lease, enough, SHORT_LEASE)


def runs_through(
    extend_lease: Callable[[Claim, Progress], LeaseState], enough: threading.Event, timing: Timing
) -> bool:
    """Keep a claim alive until `enough` is set; return whether the export was not stopped by then."""

    async def run() -> bool:
        progress = Progress()
        keeping = asyncio.create_task(keep_alive(CLAIM, progress, extend_lease, timing))
        assert await asyncio.to_thread(enough.wait, 30)
        keeping.cancel()
        return not progress.stopped

    return asyncio.run(run())
