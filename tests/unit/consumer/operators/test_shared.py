import asyncio
from collections.abc import Awaitable, Callable

import pytest

from config.errors import Unavailable
from consumer.operators.shared import Loaded, Shared


class Source:
    """A value that takes as long to load as a test lets it."""

    def __init__(self) -> None:
        self.loads = 0
        self.free = asyncio.Event()
        self.free.set()
        self.error: Exception | None = None

    async def load(self) -> int:
        self.loads += 1
        mine = self.loads
        await self.free.wait()
        if self.error is not None:
            raise self.error
        return mine


def run(test: Callable[[Source], Awaitable[None]]) -> None:
    async def start() -> None:
        await test(Source())

    asyncio.run(start())


def test_all_who_ask_at_the_same_time_share_one_load() -> None:
    async def test(source: Source) -> None:
        shared = Shared(source.load, seconds=60)

        assert await asyncio.gather(*(shared.read(5) for _ in range(50))) == [Loaded(1)] * 50
        assert (await shared.read(5), source.loads) == (Loaded(1), 1)

    run(test)


def test_a_result_that_is_no_longer_fresh_is_loaded_again() -> None:
    async def test(source: Source) -> None:
        now = 0.0
        shared = Shared(source.load, seconds=10, clock=lambda: now)

        assert (await shared.read(5), await shared.read(5)) == (Loaded(1), Loaded(1))
        now = 9.9
        assert await shared.read(5) == Loaded(1)
        now = 10.0
        assert await shared.read(5) == Loaded(2)

    run(test)


def test_an_expired_result_is_loaded_again() -> None:
    async def test(source: Source) -> None:
        shared = Shared(source.load, seconds=60)

        assert (await shared.read(5), await shared.read(5)) == (Loaded(1), Loaded(1))
        shared.expire()
        assert await shared.read(5) == Loaded(2)

    run(test)


def test_a_load_that_takes_long_is_not_started_again_and_the_last_result_stays() -> None:
    async def test(source: Source) -> None:
        shared = Shared(source.load, seconds=60)
        source.free.clear()
        assert await shared.read(0) is None
        assert await shared.read(0) is None
        assert (source.loads, shared.overdue) == (1, True)
        source.free.set()
        assert await shared.read(5) == Loaded(1)
        assert not shared.overdue

        shared.expire()
        source.free.clear()
        assert await shared.read(0) == Loaded(1)
        source.free.set()

    run(test)


def test_a_load_that_began_before_a_change_is_not_kept() -> None:
    async def test(source: Source) -> None:
        shared = Shared(source.load, seconds=60)
        source.free.clear()
        assert await shared.read(0) is None
        shared.expire()
        source.free.set()

        assert await shared.read(5) == Loaded(2)
        await asyncio.sleep(0)
        assert await shared.read(5) == Loaded(2)

    run(test)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (Unavailable("no answer\nmore"), "no answer"),
        (KeyError("x"), "internal error (KeyError), see the log"),
    ],
)
def test_an_error_is_a_problem_that_is_kept_like_a_result(error: Exception, problem: str) -> None:
    async def test(source: Source) -> None:
        shared = Shared(source.load, seconds=60)
        source.error = error

        assert [await shared.read(5) for _ in range(3)] == [Loaded(problem=problem)] * 3
        assert source.loads == 1

    run(test)
