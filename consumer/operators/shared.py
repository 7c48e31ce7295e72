"""Shares one result among all callers, so that many viewers cost as much as one."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from config.errors import Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")
REST = 20
"""A result is kept for at least this many times as long as its load took."""

LONGEST_SECONDS = 15.0


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """The result of a load, or the reason why there is none."""

    value: T | None = None
    problem: str | None = None


class Shared(Generic[T]):
    """Loads a value when it is asked for: one load at a time, and none while the last result is fresh.

    A result is fresh for `seconds`, and longer if the load took long, so that a slow dependency is not queried
    all the time. Used from the event loop only.
    """

    def __init__(
        self, load: Callable[[], Awaitable[T]], *, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._seconds = seconds
        self._clock = clock
        self._last: Loaded[T] | None = None
        self._fresh_until = -math.inf
        self._loading: asyncio.Task[None] | None = None

    async def read(self, patience: float) -> Loaded[T] | None:
        """Return the result; if a load takes longer than `patience` seconds, that of the load before, if any."""
        if self._clock() >= self._fresh_until and self._loading is None:
            self._loading = asyncio.create_task(self._run())
        if self._loading is not None:
            await asyncio.wait({self._loading}, timeout=patience)
        return self._last

    @property
    def overdue(self) -> bool:
        """Whether a load is in progress, so that the last result is not fresh."""
        return self._loading is not None

    def expire(self) -> None:
        """Load again at the next call, because the value has changed; a load in progress may have missed that."""
        self._fresh_until = -math.inf
        self._loading = None

    async def _run(self) -> None:
        mine, began = asyncio.current_task(), self._clock()
        loaded = await self._try()
        expired = self._loading is not mine
        if not expired or self._last is None:
            self._last = loaded
        if not expired:
            now = self._clock()
            self._loading = None
            self._fresh_until = now + min(max(self._seconds, REST * (now - began)), LONGEST_SECONDS)

    async def _try(self) -> Loaded[T]:
        try:
            return Loaded(await self._load())
        except Unavailable as error:
            return Loaded(problem=str(error).partition("\n")[0])
        except Exception as error:
            logger.exception("a part of the operators' page can't be loaded because of a bug")
            return Loaded(problem=f"internal error ({type(error).__name__}), see the log")
