import asyncio
from collections.abc import Awaitable, Callable

import pytest

from consumer import acknowledgements
from consumer.acknowledgements import Acknowledgements
from consumer.intake import Closed

Rest = Callable[[], Awaitable[None]]


class Events:
    """Events whose work ends when the test says so."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self._open: dict[int, asyncio.Future[None]] = {}

    def acknowledge(self, number: int) -> Callable[[], None]:
        return lambda: self.acknowledged.append(number)

    def work(self, number: int) -> Rest:
        self._open[number] = asyncio.get_running_loop().create_future()

        async def rest() -> None:
            await self._open[number]

        return rest

    async def end(self, number: int, error: Exception | None = None) -> None:
        if error is None:
            self._open[number].set_result(None)
        else:
            self._open[number].set_exception(error)
        for _ in range(5):
            await asyncio.sleep(0)

    def cancelled(self, number: int) -> bool:
        return self._open[number].cancelled()


def test_events_are_acknowledged_in_their_order() -> None:
    async def run() -> None:
        events = Events()
        with Acknowledgements() as some:
            await some.add(events.acknowledge(1), None)
            await some.add(events.acknowledge(2), events.work(2))
            await some.add(events.acknowledge(3), events.work(3))
            await some.add(events.acknowledge(4), None)
            assert events.acknowledged == [1]
            await events.end(3)
            assert events.acknowledged == [1]
            await events.end(2)
            assert events.acknowledged == [1, 2, 3, 4]

    asyncio.run(run())


def test_too_many_waiting_events_wait_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledgements, "MOST_WAITING", 2)

    async def run() -> None:
        events = Events()
        with Acknowledgements() as some:
            await some.add(events.acknowledge(1), events.work(1))
            second = asyncio.create_task(some.add(events.acknowledge(2), None))
            await asyncio.wait({second}, timeout=0.1)
            assert not second.done()
            await events.end(1)
            await asyncio.wait_for(second, 10)
            assert events.acknowledged == [1, 2]

    asyncio.run(run())


def test_an_event_whose_work_failed_is_not_acknowledged_nor_those_behind_it() -> None:
    async def run() -> None:
        events = Events()
        with Acknowledgements() as some:
            await some.add(events.acknowledge(1), events.work(1))
            await some.add(events.acknowledge(2), None)
            await events.end(1, Closed())
            with pytest.raises(Closed):
                await some.add(events.acknowledge(3), None)
        assert events.acknowledged == []

    asyncio.run(run())


def test_work_is_cancelled_when_the_agent_ends() -> None:
    async def run() -> None:
        events = Events()
        with Acknowledgements() as some:
            await some.add(events.acknowledge(1), events.work(1))
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert events.cancelled(1)
        assert events.acknowledged == []

    asyncio.run(run())
