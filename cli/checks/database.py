"""Finds what a role of the Langfuse database may not do, although Waybill needs it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, Table, func, inspect, select, text

from config.errors import Unavailable
from config.events import Status
from config.tables import (
    audit_logs,
    batch_exports,
    comments,
    dataset_items,
    datasets,
    models,
    prices,
    pricing_tiers,
    trace_sessions,
    users,
    waybill,
)
from consumer.models import LATE_CREATION
from runtime.database import reading, schema_of, writing


@dataclass(frozen=True)
class Right:
    """A right that Waybill needs: on some columns of a table, or on the whole table if there are none."""

    verb: str
    table: Table
    columns: tuple[str, ...] = ()


def _select(table: Table) -> Right:
    return Right("SELECT", table, tuple(column.name for column in table.columns))


READ = (comments, trace_sessions, datasets, dataset_items, audit_logs, models, pricing_tiers, prices)
RIGHTS = (
    _select(batch_exports),
    Right("UPDATE", batch_exports, ("status", "finished_at", "expires_at", "url", "log", "updated_at")),
    # The table has a column for passwords, which Waybill must not be able to read.
    Right("SELECT", users, ("id", "name", "email")),
    *(_select(table) for table in READ),
    *(Right(verb, table) for table in waybill.tables.values() for verb in ("SELECT", "INSERT", "UPDATE", "DELETE")),
)


def find_problems(database: Engine) -> list[str]:
    """Return one sentence for each thing that is missing, with its remedy; raises Unavailable without a connection."""
    with reading(database) as connection:
        if database.dialect.name != "postgresql":
            return [*_find_missing(connection), *_find_read_only(database)]
        if (problem := _find_schema_problem(connection)) is not None:
            return [problem]
        problems = list(_find_missing(connection))
        missing = " ".join(problems)
        present = [right for right in RIGHTS if f"table {right.table.name} " not in missing]
        problems += _find_missing_rights(connection, present)
        problems += _find_row_security(connection, {right.table: None for right in present})
    return problems + list(_find_read_only(database))


def find_future_exports(database: Engine) -> str | None:
    """Return a sentence about queued exports that were created in the future, None if there are none."""
    latest = datetime.now(UTC) + LATE_CREATION
    future = select(func.count(), func.min(batch_exports.c.id)).where(
        batch_exports.c.status == Status.QUEUED, batch_exports.c.created_at > latest
    )
    with reading(database) as connection:
        count, first = connection.execute(future).one()
    if not count:
        return None
    return (
        f"{count} queued exports have a created_at in the future, such as {first}: the column is UTC, so a producer "
        "must write timezone('UTC', now()) and not now()"
    )


def _find_schema_problem(connection: Connection) -> str | None:
    schema = schema_of(connection)
    if schema is None:
        if connection.scalar(text("SELECT current_schema()")) is not None:
            return None
        schema, shown = "public", connection.scalar(text("SHOW search_path"))
    else:
        shown = schema
        found = text("SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :schema")
        usable = connection.scalar(found, {"schema": schema})
        if usable is None:
            return f"the schema {schema} does not exist: correct `schema` in DATABASE_URL"
        if usable:
            return None
    grant = f"GRANT USAGE ON SCHEMA {connection.dialect.identifier_preparer.quote(schema)} TO {_role(connection)}"
    return f"the role can't use the schema {shown}: run `{grant}`, or correct `schema` in DATABASE_URL"


def _find_missing(connection: Connection) -> Iterator[str]:
    known, schema = inspect(connection), schema_of(connection)
    existing = set(known.get_table_names(schema))
    for table, names in _needed_columns().items():
        ours = table.metadata is waybill
        remedy = "run `waybill migrate`" if ours else "is DATABASE_URL the URL of Langfuse's database, and up to date?"
        if table.name not in existing:
            yield f"the table {table.name} is missing: {remedy}"
            continue
        present = {column["name"] for column in known.get_columns(table.name, schema)}
        for name in names:
            if name not in present:
                yield f"the table {table.name} has no column {name}: {remedy}"


def _needed_columns() -> dict[Table, list[str]]:
    needed: dict[Table, list[str]] = {}
    for right in RIGHTS:
        needed.setdefault(right.table, []).extend(right.columns)
    return {
        table: [column.name for column in table.columns] if table.metadata is waybill else list(dict.fromkeys(names))
        for table, names in needed.items()
    }


def _find_missing_rights(connection: Connection, rights: Iterable[Right]) -> Iterator[str]:
    role = _role(connection)
    for right in rights:
        lacking = [name for name in right.columns if not _may(connection, right, name)]
        if lacking or (not right.columns and not _may(connection, right)):
            whole = right.verb == "SELECT" and right.table is not users
            columns = "" if whole or not right.columns else f" ({', '.join(right.columns)})"
            yield _lacks(role, f"{right.verb}{columns} ON {_name(connection, right.table)}")
    for table in waybill.tables.values():
        for column in table.columns:
            yield from _find_missing_sequence(connection, role, _name(connection, table), column.name)


def _find_missing_sequence(connection: Connection, role: str, table: str, column: str) -> Iterator[str]:
    found = text("SELECT pg_get_serial_sequence(to_regclass(:table)::text, :column)")
    sequence = connection.scalar(found, {"table": table, "column": column})
    usable = text("SELECT has_sequence_privilege(:sequence, 'USAGE')")
    if sequence is not None and not connection.scalar(usable, {"sequence": sequence}):
        named = sequence if schema_of(connection) else sequence.rpartition(".")[2]
        yield _lacks(role, f"USAGE ON SEQUENCE {named}")


def _may(connection: Connection, right: Right, column: str | None = None) -> bool:
    values = {"table": _name(connection, right.table), "verb": right.verb, "column": column}
    if column is None:
        return bool(connection.scalar(text("SELECT has_table_privilege(:table, :verb)"), values))
    return bool(connection.scalar(text("SELECT has_column_privilege(:table, :column, :verb)"), values))


def _lacks(role: str, what: str) -> str:
    return f"the role {role} lacks {what}: run `GRANT {what} TO {role}`"


def _find_row_security(connection: Connection, tables: Iterable[Table]) -> Iterator[str]:
    role = _role(connection)
    for table in tables:
        if connection.scalar(text("SELECT row_security_active(:table)"), {"table": _name(connection, table)}):
            yield (
                f"row-level security is on for {table.name} and can hide rows from the role {role}: run "
                f"`ALTER ROLE {role} BYPASSRLS`, or give it a policy for all rows"
            )


def _find_read_only(database: Engine) -> Iterator[str]:
    try:
        with writing(database) as connection:
            is_postgres = database.dialect.name == "postgresql"
            read_only = connection.scalar(text("SHOW transaction_read_only")) if is_postgres else "off"
    except Unavailable as error:
        yield str(error)
        return
    if read_only == "on":
        yield (
            "the database is read-only for this role: is DATABASE_URL the URL of the primary server, "
            "and is default_transaction_read_only off?"
        )


def _name(connection: Connection, table: Table) -> str:
    """Return the name of a table as statements have it, quoted if necessary."""
    quoter, schema = connection.dialect.identifier_preparer, schema_of(connection)
    return quoter.quote(table.name) if schema is None else f"{quoter.quote(schema)}.{quoter.quote(table.name)}"


def _role(connection: Connection) -> str:
    return str(connection.scalar(text("SELECT quote_ident(current_user)")))
