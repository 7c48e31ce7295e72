"""Finds the user of an export in Langfuse's tables, and decides whether there is something to send."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, Text, and_, case, func, literal_column, select

from config.events import ExportFinished, Status
from config.tables import batch_exports, runs, users
from runtime.database import reading


@dataclass(frozen=True)
class Recipient:
    """The export's row and its user as they are now; `user_id` is None when the user no longer exists.

    `ignored` names the keys of the query that the event's attempt ignored. `columns_chosen` says that the query names
    the columns of the file. `may_end_early` says that the link may stop working before `expires_at`.
    """

    export_name: str
    status: str
    url: str | None
    expires_at: datetime | None
    user_id: str | None
    user_name: str | None
    address: str | None
    ignored: str | None
    columns_chosen: bool = False
    may_end_early: bool = False


def find_recipient(engine: Engine, event: ExportFinished) -> Recipient | None:
    """Return the export of the event with the user who requested it, or None if there is no such row.

    Raises Unavailable when the database fails.
    """
    with reading(engine) as connection:
        row = connection.execute(_select_recipient(event, connection.dialect.name)).one_or_none()
    if row is None:
        return None
    return Recipient(**{name: _read(value) for name, value in row._mapping.items()})  # noqa: SLF001 (public, by SQLAlchemy's documentation)


def _select_recipient(event: ExportFinished, dialect: str) -> Select[Any]:
    return (
        select(
            batch_exports.c.name.label("export_name"),
            batch_exports.c.status,
            batch_exports.c.url,
            batch_exports.c.expires_at,
            users.c.id.label("user_id"),
            users.c.name.label("user_name"),
            users.c.email.label("address"),
            runs.c.ignored,
            _are_columns_chosen(dialect).label("columns_chosen"),
        )
        .select_from(
            batch_exports.outerjoin(users, users.c.id == batch_exports.c.user_id).outerjoin(
                runs, and_(runs.c.export_id == batch_exports.c.id, runs.c.attempt == event.attempt)
            )
        )
        .where(batch_exports.c.project_id == event.project_id, batch_exports.c.id == event.batch_export_id)
    )


def _are_columns_chosen(dialect: str) -> ColumnElement[bool]:
    """Return whether the query has `columns`; it raises no error if the query is not JSON, which SQLite stores too."""
    stored: Any = batch_exports.c.query
    if dialect == "sqlite":
        columns = case((func.json_valid(stored) == 1, func.json_extract(stored, "$.columns", type_=Text())))
    else:
        columns = stored.op("->>", return_type=Text())(literal_column("'columns'"))
    return columns.is_not(None)


def _read(value: Any) -> Any:
    """Return a value as text if it is bytes, which SQLite stores in any column."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def reason_to_skip(event: ExportFinished, recipient: Recipient, target: str | None, now: datetime) -> str | None:
    """Return why no email is sent, or None if one is; `target` is the URL that the email's button opens."""
    if recipient.user_id is None:
        return "the user no longer exists"
    if not (recipient.address or "").strip():
        return "the user has no email address"
    if recipient.status != event.status:
        # Cancelled or started again: the file is not for download, or the next completion is announced instead.
        return f"the export is {recipient.status} now"
    if event.status == Status.COMPLETED and recipient.expires_at is not None and recipient.expires_at <= now:
        return "the download link has expired"
    if event.status == Status.COMPLETED and target is None:
        return "the export has no link"
    return None
