"""Records completion events from Kafka as notices; a message that can't be recorded becomes a dead letter."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeVar

from sqlalchemy import Engine, inspect

from config.errors import Unavailable
from config.events import Malformed, read_finished
from config.labels import NoticeOutcome, Verdict
from config.metrics import Metrics
from config.tables import notices
from notify.notices import Notices
from runtime.database import reading, schema_of
from runtime.dead_letters import ReceivedMessage, dead_letter
from runtime.publisher import Publisher
from runtime.retry import Backoff
from runtime.threads import in_thread
from runtime.tracing import read_traceparent

logger = logging.getLogger(__name__)

R = TypeVar("R")

RETRIES = Backoff(1, longest=10)
BUG_TRIES = 3

OUTCOMES = {
    Verdict.MALFORMED: NoticeOutcome.MALFORMED,
    Verdict.UNREADABLE: NoticeOutcome.UNREADABLE,
    Verdict.BUG: NoticeOutcome.BUG,
}


@dataclass(frozen=True, kw_only=True)
class Intake:
    """Turns each message into a notice or a dead letter; `on_new` is called after a new notice."""

    engine: Engine
    notices: Notices
    publisher: Publisher
    dead_letter_topic: str
    metrics: Metrics
    now: Callable[[], datetime]
    on_new: Callable[[], object]

    async def handle(self, message: ReceivedMessage) -> None:
        """Handle one message; on return, its notice or its dead letter is durable, so that it can be acknowledged.

        Waits while the database or Kafka is unavailable. A bug is logged, and must not block the messages behind it.
        """
        if message.unreadable is not None:
            self.metrics.unreadable_records.labels(message.topic).inc()
            await self._dead_letter(message, Verdict.UNREADABLE, message.unreadable.reason)
            return
        try:
            if not await self.record(message.value, read_traceparent(message.headers)):
                self.metrics.notices.labels("all", NoticeOutcome.DUPLICATE).inc()
        except Malformed as error:
            await self._dead_letter(message, Verdict.MALFORMED, str(error))
        except Exception as error:  # noqa: BLE001 (it was logged; one message must not block all others)
            await self._dead_letter(message, Verdict.BUG, f"an unexpected error occurred: {type(error).__name__}")

    async def record(self, value: bytes | None, traceparent: str | None = None) -> bool:
        """Record a completion event as notices; return False if it has some, raise Malformed if it is none."""
        event = read_finished(value)
        recorded = await retry(partial(self.notices.record, event, self.now(), traceparent), self.engine)
        if recorded:
            self.on_new()
        return recorded

    async def _dead_letter(self, message: ReceivedMessage, verdict: Verdict, reason: str) -> None:
        place = {"partition": message.partition, "offset": message.offset}
        logger.warning("a completion event became a dead letter: %s", reason, extra=place | {"verdict": str(verdict)})
        self.metrics.notices.labels("all", OUTCOMES[verdict]).inc()
        publish = partial(
            dead_letter,
            self.publisher,
            self.dead_letter_topic,
            message,
            verdict=verdict,
            reason=reason,
            now=self.now(),
        )
        try:
            await retry(publish, self.engine)
        except Exception:
            logger.exception("no dead letter could be written: the message stays in its topic only", extra=place)
        else:
            self.metrics.dead_letters.labels(verdict).inc()


async def retry(work: Callable[[], R], engine: Engine) -> R:
    """Call `work` in a thread until it succeeds: without end during an outage, BUG_TRIES times for other errors.

    It is an outage, too, when the tables of Waybill are missing or can't be looked up. Raises the last error.
    """
    delays, bugs = RETRIES.delays(), 0
    while True:
        try:
            return await in_thread(work)
        except Unavailable as error:
            logger.warning("the notifier is waiting and will try again: %s", error)
        except Exception:
            logger.exception("an unexpected error in the notifier")
            bugs += await in_thread(_has_tables, engine)
            if bugs == BUG_TRIES:
                raise
        await asyncio.sleep(next(delays))


def check_tables(engine: Engine) -> None:
    """Check that the database answers and is migrated; raises an error whose text says what to do."""
    with reading(engine) as connection:
        exists = inspect(connection).has_table(notices.name, schema_of(engine))
    if not exists:
        raise ConnectionError(f"table {notices.name} is missing: run `waybill migrate`")


def _has_tables(engine: Engine) -> bool:
    try:
        check_tables(engine)
    except Exception:  # noqa: BLE001 (whatever it is, the database is not usable)
        return False
    return True
