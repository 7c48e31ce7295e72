"""Makes the overview of all exports, as JSON for the page and for scripts."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Engine

from consumer.operators.fields import (
    Fields,
    describe_dead_letter,
    describe_ending,
    describe_notice,
    describe_queued,
    describe_running,
    write_time,
)
from consumer.operators.shared import Loaded, Shared
from consumer.operators.statements import Exports, Row, read_exports
from runtime.database import reading_briefly
from runtime.dead_letters import LatestDeadLetters
from runtime.http import Health
from runtime.threads import in_thread

OVERVIEW_SECONDS = 1.0
DEPENDENCIES_SECONDS = 5.0
DEAD_LETTERS_SECONDS = 15.0
STATEMENT_SECONDS = 5.0
PATIENCE = 3.0
"""How long the overview waits for the database, in seconds; after that, the other parts are shown without it."""

REST_PATIENCE = 1.0
"""How long it waits for dependencies and dead letters, which may be as old as they were at the call before."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the overview is made from; `read_dead_letters` runs in a thread and raises Unavailable."""

    engine: Engine
    read_dead_letters: Callable[[], LatestDeadLetters]
    now: Callable[[], datetime]
    version: str
    changes_allowed: bool


class Overview:
    """The overview: made at most once a second, however many clients ask, and not at all if none does."""

    def __init__(self, observed: Observed, health: Health) -> None:
        self._observed = observed
        self._health = health
        self._made = Shared(self._make, seconds=OVERVIEW_SECONDS)
        self._exports = Shared(partial(in_thread, _read, observed.engine), seconds=0)
        self._dependencies = Shared(health.ask, seconds=DEPENDENCIES_SECONDS)
        self._dead_letters = Shared(partial(in_thread, observed.read_dead_letters), seconds=DEAD_LETTERS_SECONDS)

    async def read(self) -> Loaded[bytes]:
        """Return the overview as JSON."""
        return await self._made.read(2 * PATIENCE) or Loaded(problem=f"no answer within {2 * PATIENCE:g} s")

    def expire(self) -> None:
        """Make it again at the next call, because an export was changed."""
        self._made.expire()
        self._exports.expire()

    async def _make(self) -> bytes:
        late: Loaded[Any] = Loaded(problem=f"the database did not answer within {PATIENCE:g} s")
        unknown: Loaded[Any] = Loaded(problem="not known yet")
        exports = await self._exports.read(PATIENCE)
        if exports is None or self._exports.overdue:
            exports = late
        dependencies = await self._dependencies.read(REST_PATIENCE) or unknown
        letters = await self._dead_letters.read(REST_PATIENCE) or unknown
        now = self._observed.now()
        parts = {"exports": exports, "dependencies": dependencies, "deadLetters": letters}
        problems = [{"part": name, "detail": part.problem} for name, part in parts.items() if part.problem is not None]
        body = {
            "time": write_time(now),
            "version": self._observed.version,
            "changesAllowed": self._observed.changes_allowed,
            "problems": problems,
            "dependencies": _list_dependencies(dependencies.value),
            "partitions": self._health.partitions,
            "stuck": self._health.stuck(),
            **_describe_exports(exports.value, now),
            "deadLetters": _describe_dead_letters(letters.value),
        }
        return await in_thread(_encode, body)


def _encode(body: Fields) -> bytes:
    return json.dumps(body).encode()


def _read(engine: Engine) -> Exports:
    with reading_briefly(engine, STATEMENT_SECONDS) as connection:
        return read_exports(connection)


def _list_dependencies(answers: dict[str, str | None] | None) -> list[Fields] | None:
    if answers is None:
        return None
    return [{"name": name, "ok": why is None, "detail": why} for name, why in answers.items()]


def _describe_exports(found: Exports | None, now: datetime) -> Fields:
    if found is None:
        return dict.fromkeys(("queue", "running", "endings", "notices"))
    return {
        "queue": {"total": found.queued_total, "exports": _each(describe_queued, found.queued, now)},
        "running": {"total": found.running_total, "exports": _each(describe_running, found.running, now)},
        "endings": [describe_ending(row) for row in found.endings],
        "notices": {"total": found.notices_total, "notices": _each(describe_notice, found.notices, now)},
    }


def _each(describe: Callable[[Row, datetime], Fields], rows: Iterable[Row], now: datetime) -> list[Fields]:
    return [describe(row, now) for row in rows]


def _describe_dead_letters(found: LatestDeadLetters | None) -> Fields | None:
    if found is None:
        return None
    return {"total": found.total, "messages": [describe_dead_letter(each) for each in found.latest]}
