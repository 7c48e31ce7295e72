"""Creates and upgrades Waybill's tables with Alembic; Langfuse's tables are never changed."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from runtime.database import schema_of, writing

VERSION_TABLE = "waybill_alembic_version"
_LOCK = 0x57617962696C6C  # "Waybill" in ASCII: any number that no other program locks


def migrate(engine: Engine) -> None:
    """Upgrade the `waybill_*` tables to the newest revision; safe to run repeatedly and concurrently.

    Raises Unavailable when the database fails.
    """
    script = Config()
    script.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        script.attributes["connection"] = connection
        script.attributes["schema"] = schema_of(connection)
        command.upgrade(script, "head")
