"""The command `create`, which inserts an export and publishes its request."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer
from sqlalchemy import Engine, Select, select
from sqlalchemy.exc import DBAPIError

from cli import build
from cli.exports import JsonFlag, Project, find_job, print_job, publish_request
from cli.filters import read_filters, split_list
from cli.output import BAD_USAGE, FAILED, fail, join_choices, print_note
from cli.progress import follow_or_leave
from cli.window import read_window
from config.errors import Rejected, Unavailable
from config.events import Status
from config.settings import load
from config.tables import projects, users
from consumer.job_store import Jobs
from consumer.models import Job, NewExport, Unreadable
from consumer.new_exports import check_new, create_once, make_id
from pipeline.tables import find_table
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
    last: Annotated[
        str | None,
        typer.Option(help="Only rows of the last 30m, 24h or 7d: whole minutes, hours or days.", show_default=False),
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Only rows from this date or time on, in UTC.", show_default=False)
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Only rows before this date or time, in UTC.", show_default=False)
    ] = None,
    search: Annotated[str | None, typer.Option(help="Text to search for.", show_default=False)] = None,
    search_in: Annotated[
        list[str] | None, typer.Option(help="Where to search: id, content, input or output.", show_default=False)
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="The columns of the file, in order: id,name,scores.accuracy; scores stands for all scores.",
            show_default=False,
        ),
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
    settings = load(needs=["DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"])
    now = datetime.now(UTC)
    try:
        window = read_window(last, from_, to, now)
        filters_ = read_filters(table, filters or ())
        filters_ += window.make_filters(find_table(table)) if window is not None else []
        query: dict[str, Any] = {"tableName": table, "filter": filters_, "orderBy": _read_order(order_by)}
        query |= {"searchQuery": search, "searchType": search_in or ["id"]} if search else {}
        query |= {"columns": split_list(columns)} if columns is not None else {}
        query |= {"useEventsTable": True} if events else {}
        query |= {"compression": compression} if compression != "none" else {}
        name = name or f"{window or _format_second(now)} - {table} as {format_.upper()}"
        new = NewExport(project_id=project, user_id=user, name=name, query=query, format=format_.upper())
        new = new if window is None else replace(new, id=_make_window_id(new))
        check_new(new, now)
    except Rejected as refused:
        fail(str(refused), status=BAD_USAGE)
    jobs = build.jobs(settings)
    for warning in find_unknown(jobs.engine, new):
        print_note(warning)
    job = _insert(jobs, new, now)
    if job.status == Status.QUEUED:
        publish_request(settings, project, job.id)
    if wait:
        job = follow_or_leave(partial(find_job, jobs, project, job.id))
    print_job(settings, jobs, job, as_json=as_json)
    if wait and job.status != Status.COMPLETED:
        raise typer.Exit(FAILED)


def _make_window_id(new: NewExport) -> str:
    """Return an id that is the same whenever the same export of the same window is asked for."""
    return make_id(new.project_id, "window " + json.dumps([new.user_id, new.name, new.query, new.format]))


def _insert(jobs: Jobs, new: NewExport, now: datetime) -> Job:
    """Insert an export, or return the one of the same window."""
    try:
        job, created = create_once(jobs, new, now)
    except Unreadable as error:
        fail(f"The export {new.id} of this window exists already, and it can't be read: {error}.")
    if not created:
        ids = shlex.join((job.project_id, job.id))
        again = f" To queue it again: waybill retry {ids}" if job.ended_without_file else ""
        print_note(f"The export of this window exists already; it is {job.status}.{again}")
    return job


def _format_second(now: datetime) -> str:
    return now.isoformat(timespec="seconds").replace("+00:00", "Z")


def _read_order(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    column, _, direction = text.partition(":")
    return {"column": column, "order": direction.upper() or "ASC"}


def find_unknown(engine: Engine, new: NewExport) -> Iterator[str]:
    """Yield a sentence if the project, or the user who gets the email, is not in Langfuse's tables.

    A table that the role may not read, or that is missing, is not judged.
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
    except (DBAPIError, Unavailable):  # a role without the right, or a failure that the insert will report
        return False
