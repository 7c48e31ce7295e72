"""Finds whom a completion is for in the application's tables, and decides whether there is anything to tell."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from config import errors
from config.events import ExportFinished, Status
from config.tables import batch_exports, users
from notify.errors import Unavailable
from runtime.database import reading


@dataclass(frozen=True)
class Recipient:
    """The export's row and its user as they are now; `user_id` is None when the user is gone."""

    export_name: str
    status: str
    url: str | None
    expires_at: datetime | None
    user_id: str | None
    user_name: str | None
    address: str | None


def find(engine: Engine, event: ExportFinished) -> Recipient | None:
    """Look the export up by project and id, with the user who asked for it; None if there is no such row.

    Raises Unavailable when the database does not answer.
    """
    wanted = (
        select(
            batch_exports.c.name.label("export_name"),
            batch_exports.c.status,
            batch_exports.c.url,
            batch_exports.c.expires_at,
            users.c.id.label("user_id"),
            users.c.name.label("user_name"),
            users.c.email.label("address"),
        )
        .select_from(batch_exports.outerjoin(users, users.c.id == batch_exports.c.user_id))
        .where(batch_exports.c.project_id == event.project_id, batch_exports.c.id == event.batch_export_id)
    )
    try:
        with reading(engine) as connection:
            row = connection.execute(wanted).one_or_none()
    except (SQLAlchemyError, errors.Unavailable) as error:
        raise Unavailable(f"the database does not answer ({type(error).__name__})") from error
    return Recipient(**row._mapping) if row is not None else None  # noqa: SLF001 (public, by SQLAlchemy's documentation)


def why_not(event: ExportFinished, found: Recipient, target: str | None, now: datetime) -> str | None:
    """Say why there is nobody to tell or nothing, or None if there is; `target` is what the button would open."""
    if found.user_id is None:
        return "there is no such user"
    if not (found.address or "").strip():
        return "the user has no mail address"
    if found.status != event.status:
        # Cancelled, or started again: the file is not for download, or the next ending will be told.
        return f"the export is {found.status} by now"
    if event.status == Status.COMPLETED and found.expires_at is not None and found.expires_at <= now:
        return "its link has expired"
    if event.status == Status.COMPLETED and target is None:
        return "the export has no link"
    return None
