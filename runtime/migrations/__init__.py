"""Makes Waybill's own tables, step by step; the application's tables are never touched."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from runtime.database import writing

VERSION_TABLE = "waybill_alembic_version"
_LOCK = 0x57617962696C6C  # "Waybill": any number that nobody else uses


def migrate(engine: Engine) -> None:
    """Bring the `waybill_*` tables to the newest revision; safe to run from several places at once, and again."""
    script = Config()
    script.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        script.attributes["connection"] = connection
        command.upgrade(script, "head")
