"""Creates the application's tables where there is no application: for development, the demo and tests."""

from importlib.resources import files
from typing import Any, Protocol

from sqlalchemy import Engine

from config.tables import langfuse

SCHEMA = "clickhouse_schema.sql"


class Client(Protocol):
    """A ClickHouse client, such as clickhouse-connect's; its own errors pass through."""

    def command(self, cmd: str) -> Any:
        """Run one statement that returns no rows."""


def create_application_schema(clickhouse: Client, engine: Engine) -> None:
    """Create what is missing of the application's tables, on both sides."""
    langfuse.create_all(engine)
    create(clickhouse)


def create(client: Client) -> None:
    """Create the ClickHouse tables that are missing in the client's database; those that are there stay as they are."""
    for statement in statements():
        client.command(statement)


def statements() -> list[str]:
    """Return the schema's statements in the order in which they must run."""
    text = (files("embedded") / SCHEMA).read_text("utf-8")
    return [statement.strip() for statement in text.split(";\n") if statement.strip()]
