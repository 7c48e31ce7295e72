"""Tries every statement that exports send to ClickHouse on a project without rows, and says what does not work."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime

from sqlalchemy import create_engine

from config.errors import Rejected, Unavailable
from config.tables import langfuse
from pipeline.progress import Progress
from pipeline.read.clickhouse_errors import (
    CLIENT_ERRORS,
    MissingTable,
    StatementRefused,
    Unreachable,
    translate_client_error,
)
from pipeline.read.clickhouse_settings import describe_effects
from pipeline.read.connect import list_optional, open_client
from pipeline.read.connections import ClickHouse, Sources
from pipeline.read.open_table import MOST_ROWS, open_table
from pipeline.read.server import MAX_BLOCK_SIZE
from pipeline.spec import read_spec
from pipeline.tables import TABLES
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.types import OutputOptions

OPTIONAL_TABLES = frozenset({"events_full", "events_core"})
"""Tables that only newer versions of Langfuse have."""

_NO_PROJECT = "waybill-doctor"


def find_problems(source: ClickHouse) -> list[str]:
    """Return one sentence for each thing that exports can't do, with its remedy; each appears once."""
    # Sessions and comments are read from the other database, which has its own check.
    database = create_engine("sqlite://")
    langfuse.create_all(database)
    try:
        found = dict.fromkeys(_try_tables(Sources(source, database)))
    finally:
        database.dispose()
    return list(found)


def find_effects(source: ClickHouse) -> list[str]:
    """Return one sentence for each limit of the user, and each column that tables lack, that exports tolerate.

    Call it where there are no problems. Raises Unavailable.
    """
    try:
        with closing(open_client(source)) as opened:
            server = opened.server
    except CLIENT_ERRORS as error:
        raise translate_client_error(error) from error
    return [
        *describe_effects(server.limits, list_optional(source.tuning, server) | {MAX_BLOCK_SIZE: MOST_ROWS}),
        *(
            f"the table {table} lacks {', '.join(sorted(columns))}, which newer versions of Langfuse have: "
            "what exports compute from them is null"
            for table, columns in server.find_absent().items()
            if columns
        ),
    ]


def _try_tables(sources: Sources) -> Iterator[str]:
    for query in _list_queries():
        spec = read_spec(
            project_id=_NO_PROJECT,
            export_id=_NO_PROJECT,
            attempt=1,
            created_at=datetime.now(UTC),
            query=query,
            format="CSV",
            output=OutputOptions(row_limit=1),
        )
        try:
            with open_table(spec, sources, Progress()) as table:
                for _ in table.batches:
                    pass
        except MissingTable as error:
            if error.table not in OPTIONAL_TABLES:
                yield str(error)
        except Rejected as error:
            yield str(error)
        except Unavailable as error:
            yield str(error)
            if isinstance(error, Unreachable):
                return
        except StatementRefused as error:
            yield (
                f"ClickHouse refuses the statement that exports {query['tableName']}: is Langfuse's schema, or the "
                f"server, older than Waybill supports? ({error})"
            )


def _list_queries() -> Iterable[dict[str, object]]:
    for name, table in TABLES.items():
        if isinstance(table, ClickHouseTable):
            yield {"tableName": name, "filter": [], "orderBy": None}
            if table.from_events is not None:
                yield {"tableName": name, "filter": [], "orderBy": None, "useEventsTable": True}
