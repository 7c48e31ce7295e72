"""The command `create`, which inserts an export and publishes its request."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer
from sqlalchemy import Engine, Select, select
from sqlalchemy.exc import DBAPIError

from cli import build
from cli.exports import JsonFlag, Project, find_job, print_job, publish_request
from cli.output import FAILED, fail, join_choices, print_note
from cli.progress import follow_or_leave
from config.errors import Rejected
from config.events import Status
from config.settings import load
from config.tables import projects, users
from consumer.models import NewExport
from pipeline.types import CODECS, FORMATS
from runtime.database import reading

FormatOption = Annotated[str, typer.Option("--format", help=f"{join_choices(FORMATS)}.")]
CompressionOption = Annotated[str, typer.Option(help=f"{join_choices(CODECS)}.")]


def create(
    project: Project,
    table: Annotated[str, typer.Argument(help="The table to export; `waybill tables` lists them.")] = "traces",
    format_: FormatOption = "CSV",
    compression: CompressionOption = "none",
    name: Annotated[str | None, typer.Option(help="The name of the export in the email.", show_default=False)] = None,
    user: Annotated[str, typer.Option(help="The ID of the user who gets the email.")] = "",
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="level=ERROR, 'latency>2.5', 'tags any-of a,b', 'scores.accuracy>=0.8' or JSON; rows must match all.",
            show_default=False,
        ),
    ] = None,
    search: Annotated[str | None, typer.Option(help="Text to search for.", show_default=False)] = None,
    search_in: Annotated[
        list[str] | None, typer.Option(help="Where to search: id, content, input or output.", show_default=False)
    ] = None,
    order_by: Annotated[
        str | None,
        typer.Option(help="The column to sort by, with :ASC or :DESC.", show_default=False, metavar="COLUMN[:DESC]"),
    ] = None,
    events: Annotated[
        bool, typer.Option("--events", help="Read observations, scores or sessions from the events table.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress until the export ends.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Create an export and publish its request."""
    from cli.filters import read_filters
    from consumer.new_exports import check_new

    settings = load(needs=["DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"])
    now = datetime.now(UTC)
    try:
        query: dict[str, Any] = {"tableName": table, "filter": read_filters(table, filters or ())}
        query |= {"orderBy": _read_order(order_by)}
        query |= {"searchQuery": search, "searchType": search_in or ["id"]} if search else {}
        query |= {"useEventsTable": True} if events else {}
        query |= {"compression": compression} if compression != "none" else {}
        stamp = now.isoformat(timespec="seconds").replace("+00:00", "Z")
        name = name or f"{stamp} - {table} as {format_.upper()}"
        new = NewExport(project_id=project, user_id=user, name=name, query=query, format=format_.upper())
        check_new(new, now)
    except Rejected as refused:
        fail(str(refused), status=2)
    jobs = build.jobs(settings)
    for warning in find_unknown(jobs.engine, new):
        print_note(warning)
    job = jobs.create(new, now)
    publish_request(settings, project, job.id)
    if wait:
        job = follow_or_leave(partial(find_job, jobs, project, job.id))
    print_job(settings, jobs, job, as_json=as_json)
    if wait and job.status != Status.COMPLETED:
        raise typer.Exit(FAILED)


def _read_order(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    column, _, direction = text.partition(":")
    return {"column": column, "order": direction.upper() or "ASC"}


def find_unknown(engine: Engine, new: NewExport) -> Iterator[str]:
    """Yield a sentence if the project, or the user who gets the email, is not in Langfuse's tables.

    A table that the role may not read, or that is missing, is not judged. Raises Unavailable.
    """
    if _is_empty(engine, select(projects.c.id).where(projects.c.id == new.project_id)):
        yield f"The database has no project {new.project_id}, so the export may have no rows."
    user = select(users.c.id).where(users.c.id == new.user_id)
    if new.user_id and _is_empty(engine, user):
        yield f"The database has no user {new.user_id}, so nobody gets an email."
    elif new.user_id and _is_empty(engine, user.where(users.c.email.is_not(None))):
        yield f"The user {new.user_id} has no email address, so nobody gets an email."


def _is_empty(engine: Engine, query: Select[Any]) -> bool:
    """Return whether the query has no row; False if it can't be asked."""
    try:
        with reading(engine) as connection:
            return connection.execute(query).first() is None
    except DBAPIError:
        return False
