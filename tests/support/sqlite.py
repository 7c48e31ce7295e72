"""SQLite databases that are copies of one: to create the tables takes longer than most tests."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Engine, make_url

from config.tables import langfuse
from runtime.database import open_database
from runtime.migrations import migrate


def open_copy(file: Path, create: Callable[[Engine], None]) -> Engine:
    """Open a new database with the tables that `create` makes; it is called once in a process."""
    file.write_bytes(_content(create))
    return _open(file)


def create_all_tables(engine: Engine) -> None:
    """Create Langfuse's tables and Waybill's own."""
    langfuse.create_all(engine)
    migrate(engine)


@cache
def _content(create: Callable[[Engine], None]) -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        engine = _open(file)
        create(engine)
        engine.dispose()
        return file.read_bytes()


def _open(file: Path) -> Engine:
    return open_database(make_url(f"sqlite:///{file}"))
