"""Acknowledges events in the order of their arrival, although some of them take longer than those behind them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

MOST_WAITING = 100
"""Events that wait for their acknowledgement; more are not taken, so that a crash repeats no more than these."""


class Acknowledgements:
    """Runs the rest of the work on events beside each other, and acknowledges no event before those ahead of it.

    Faust would commit the offset of an acknowledged event, and skip the events ahead of it after a crash. Leaving the
    context cancels the work; its events stay unacknowledged and are delivered again.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[], object], asyncio.Future[None]]] = deque()

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel the work that has not ended."""
        for each in self._waiting:
            each[1].cancel()

    async def add(self, acknowledge: Callable[[], object], rest: Callable[[], Awaitable[None]] | None) -> None:
        """Call `acknowledge` when the `rest` of the work on its event, if any, and all events ahead of it are done.

        Waits while too many events wait. Raises the error of the first event whose work failed.
        """
        work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if rest is None:
            work.set_result(None)
        else:
            work = asyncio.ensure_future(rest())
            work.add_done_callback(lambda _: self._advance())
        self._waiting.append((acknowledge, work))
        self._advance()
        while len(self._waiting) >= MOST_WAITING or (self._waiting and _failed(self._waiting[0][1])):
            await asyncio.shield(self._waiting[0][1])
            self._advance()

    def _advance(self) -> None:
        while self._waiting and self._waiting[0][1].done() and not _failed(self._waiting[0][1]):
            acknowledge, _ = self._waiting.popleft()
            acknowledge()


def _failed(work: asyncio.Future[None]) -> bool:
    return work.done() and (work.cancelled() or work.exception() is not None)
