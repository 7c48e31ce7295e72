"""Creates Langfuse's tables where there is no Langfuse: for development, the demo and tests."""

from importlib.resources import files
from typing import Any, Protocol

from sqlalchemy import Engine

from config.tables import langfuse

SCHEMA = "clickhouse_schema.sql"


class Client(Protocol):
    """A ClickHouse client, such as clickhouse-connect's; its errors are not translated."""

    def command(self, cmd: str) -> Any:
        """Run one statement that returns no rows."""


def create_langfuse_schema(clickhouse: Client, engine: Engine) -> None:
    """Create missing Langfuse tables in both databases."""
    langfuse.create_all(engine)
    create_clickhouse_tables(clickhouse)


def create_clickhouse_tables(client: Client) -> None:
    """Create missing ClickHouse tables in the client's database; existing tables are not changed."""
    for statement in read_statements():
        client.command(statement)


def read_statements() -> list[str]:
    """Return the statements of the schema, in the order in which they must run."""
    text = (files("embedded") / SCHEMA).read_text("utf-8")
    return [statement.strip() for statement in text.split(";\n") if statement.strip()]
