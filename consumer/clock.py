"""Tells the database's time, so that leases mean the same to every worker, whatever its own clock says."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from runtime.database import reading


class DatabaseClock:
    """This machine's clock, corrected by how far it was from the database's when last compared."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Tell the time: aware, UTC."""
        return datetime.now(UTC) - self._ahead

    def compare(self) -> timedelta:
        """Ask the database for its time, and say how far this clock is ahead of it; raises Unavailable."""
        if self._engine.dialect.name != "postgresql":
            return self._ahead  # SQLite has no clock but this machine's
        with reading(self._engine) as connection:
            began = datetime.now(UTC)
            theirs: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
            ended = datetime.now(UTC)
        self._ahead = began + (ended - began) / 2 - theirs
        return self._ahead
