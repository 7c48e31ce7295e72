"""Tells the database's time, so that leases mean the same to every worker, even if its own clock is wrong."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, func, select

from config.errors import Unavailable
from config.instant import Instant
from runtime.database import reading
from runtime.supervise import wait_for_stop
from runtime.threads import in_thread

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0

# Without a time zone, it can be read whatever the session's TimeZone and DateStyle are.
_CLOCK = func.timezone("UTC", func.clock_timestamp(), type_=Instant())


class DatabaseClock:
    """This machine's clock, corrected by its difference to the database's clock when they were last compared."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the time: aware, UTC."""
        return datetime.now(UTC) - self._ahead

    def compare(self) -> timedelta:
        """Read the database's time, and return how far this machine's clock is ahead of it; raises Unavailable."""
        if self._engine.dialect.name != "postgresql":
            return self._ahead  # SQLite uses this machine's clock
        with reading(self._engine) as connection:
            began = datetime.now(UTC)
            theirs: datetime = connection.execute(select(_CLOCK)).scalar_one()
            ended = datetime.now(UTC)
        self._ahead = began + (ended - began) / 2 - theirs
        return self._ahead

    async def start(self, stop: asyncio.Event) -> bool:
        """Compare until it succeeds, as nothing may be claimed before; False when `stop` is set first."""
        logged = ""
        while not stop.is_set():
            try:
                await in_thread(self.compare)
            except Unavailable as error:
                if str(error) != logged:
                    logged = str(error)
                    logger.warning("waiting for database: %s", error, extra={"dependency": "database"})
            else:
                return True
            await wait_for_stop(stop, RETRY_SECONDS)
        return False
