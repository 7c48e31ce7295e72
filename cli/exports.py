"""Commands about exports that exist: ring, list, show, watch, cancel, retry."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from cli import build
from cli.output import BAD_USAGE, FAILED, fail, format_size, print_fields, print_json, print_sentence, print_table
from cli.progress import follow_or_leave
from config.errors import Rejected, Unavailable
from config.events import Status, are_valid_ids
from config.links import read_links
from config.settings import Settings, load
from consumer.job_store import Jobs
from consumer.models import Job, Run, Unreadable, UnreadableJob
from consumer.queries import list_jobs, list_runs
from pipeline.ignored_keys import describe_names
from pipeline.spec import list_ignored_keys

Project = Annotated[str, typer.Argument(help="The ID of the project.", show_default=False)]
Export = Annotated[str, typer.Argument(help="The ID of the export.", show_default=False)]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LIST_COLUMNS = ("id", "project", "status", "table", "format", "attempt", "rows", "size", "created", "finished")
MOST_LISTED = 1_000_000_000
"""Fits the integers of every database."""


def ring(project: Project, export: Export) -> None:
    """Publish the request for an export again."""
    if not are_valid_ids(project, export):
        fail(f"IDs have 1 to 512 characters; no request can be published for {project!r} {export!r}.", status=BAD_USAGE)
    publish_request(load(needs=["KAFKA_BOOTSTRAP_SERVERS"]), project, export)
    print_sentence(f"Published the request for {export}.")


def list_(
    project: Annotated[str | None, typer.Option(help="Only exports of this project.", show_default=False)] = None,
    status: Annotated[
        Status | None, typer.Option(help="Only exports with this status.", show_default=False, case_sensitive=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST_LISTED, help="The maximum number of exports.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List exports, newest first."""
    listed = list_jobs(build.engine(load(needs=["DATABASE_URL"])), project_id=project, status=status, limit=limit)
    if as_json:
        print_json([_fields(job) for job in listed])
    else:
        rows = [[_fields(job).get(name) if name != "size" else _size(job) for name in LIST_COLUMNS] for job in listed]
        print_table(LIST_COLUMNS, rows, empty="There are no exports.")


def show(project: Project, export: Export, as_json: JsonFlag = False) -> None:
    """Show an export and its attempts."""
    settings = load(needs=["DATABASE_URL"])
    jobs = build.jobs(settings)
    print_job(settings, jobs, find_job(jobs, project, export), as_json=as_json)


def watch(project: Project, export: Export, as_json: JsonFlag = False) -> None:
    """Show the progress of an export until it ends."""
    settings = load(needs=["DATABASE_URL"])
    jobs = build.jobs(settings)
    job = follow_or_leave(partial(find_job, jobs, project, export))
    print_job(settings, jobs, job, as_json=as_json)
    if job.status != Status.COMPLETED:
        raise typer.Exit(FAILED)


def cancel(project: Project, export: Export) -> None:
    """Cancel an export; a running export stops within one heartbeat and leaves no file."""
    jobs = build.jobs(load(needs=["DATABASE_URL"]))
    try:
        jobs.cancel(find_job(jobs, project, export), datetime.now(UTC))
    except Rejected as refused:
        fail(str(refused))
    print_sentence(f"Cancelled {export}.")


def retry(project: Project, export: Export) -> None:
    """Queue a failed or cancelled export again."""
    settings = load(needs=["DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"])
    jobs = build.jobs(settings)
    try:
        jobs.retry(find_job(jobs, project, export), datetime.now(UTC))
    except Rejected as refused:
        fail(str(refused))
    publish_request(settings, project, export)
    print_sentence(f"Queued {export} again.")


def publish_request(settings: Settings, project: str, export: str) -> None:
    """Publish the request for an export, or end the command with an error; the sweeper starts the export anyway."""
    from consumer import new_exports

    try:
        new_exports.publish_request(build.publisher(settings), settings.requests_topic, project, export)
    except Unavailable as error:
        fail(str(error))


def find_job(jobs: Jobs, project: str, export: str) -> Job:
    """Find an export, or end the command with an error."""
    try:
        job = jobs.find(project, export)
    except Unreadable as error:
        fail(f"The export {export} can't be read: {error}. A consumer sets it to FAILED if it has not ended.")
    if job is None:
        fail(f"There is no export {export} in project {project}. To list them: waybill list --project {project}")
    return job


def _fields(job: Job | UnreadableJob) -> dict[str, Any]:
    if isinstance(job, UnreadableJob):
        unread = {"id": job.key.export_id, "project": job.key.project_id, "status": job.status}
        return unread | {"table": "can't be read", "problem": job.why}
    run = job.run
    return {
        "id": job.id,
        "project": job.project_id,
        "name": job.name,
        "status": job.status,
        "table": job.table,
        "format": job.format,
        "attempt": job.attempt,
        "rows": run.rows if run else None,
        "bytes": run.bytes if run else None,
        "sha256": run.sha256 if run else None,
        "truncated": run.truncated if run else False,
        "key": run.object_key if run else None,
        "url": job.url,
        "created": job.created_at,
        "finished": job.finished_at,
        "expires": job.expires_at,
        "log": job.log,
    }


def _run_fields(run: Run) -> dict[str, Any]:
    return {
        "attempt": run.attempt,
        "outcome": run.outcome,
        "worker": run.worker,
        "claimed": run.claimed_at,
        "heartbeat": run.heartbeat_at,
        "finished": run.finished_at,
        "rows": run.rows,
        "bytes": run.bytes,
        "error_class": run.error_class,
        "error": run.error,
        "next_attempt": run.next_attempt_at,
    }


def _size(job: Job | UnreadableJob) -> str | None:
    return format_size(job.run.bytes) if isinstance(job, Job) and job.run else None


def print_job(settings: Settings, jobs: Jobs, job: Job, *, as_json: bool) -> None:
    """Print an export and its attempts."""
    links = read_links(settings)
    ignored = list_ignored_keys(job.query)
    fields = _fields(job) | {"link": links.write(job.project_id, job.id) if links is not None else None}
    attempts = [_run_fields(run) for run in list_runs(jobs.engine, job)]
    if as_json:
        print_json({**fields, "query": job.query, "ignored": ignored, "attempts": attempts})
        return
    print_fields({**fields, "ignored": describe_names(ignored)} if ignored else fields)
    if len(attempts) > 1 or any(each["error"] for each in attempts):
        names = ("attempt", "outcome", "claimed", "finished", "rows", "error")
        print_table(names, [[each[name] for name in names] for each in attempts], empty="")
