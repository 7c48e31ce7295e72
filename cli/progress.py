"""Shows the progress of an export on stderr until it ends."""

import shlex
import time
from collections.abc import Callable
from typing import Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from cli.output import error_console, format_cell, format_size, print_note
from config.events import Status
from consumer.models import Job

POLL_SECONDS = 0.25
INTERRUPTED = 130
MARKS = {str(Status.COMPLETED): ("✓", "green"), str(Status.FAILED): ("✗", "red")}
OTHER_MARK = ("-", "yellow")


def follow_or_leave(find: Callable[[], Job]) -> Job:
    """Show the progress of an export as `follow_progress` does; after Ctrl-C, say that the export continues."""
    job = find()
    try:
        return follow_progress(find)
    except KeyboardInterrupt:
        ids = shlex.join((job.project_id, job.id))
        print_note(f"The export continues. To follow it: waybill watch {ids}. To stop it: waybill cancel {ids}")
        raise typer.Exit(INTERRUPTED) from None


def follow_progress(find: Callable[[], Job]) -> Job:
    """Show the progress of the export that `find` reads, until it ends; return its final state."""
    spinner, bar = SpinnerColumn(), BarColumn(bar_width=20)
    columns = (
        spinner,
        TextColumn("{task.fields[status]:<10}", markup=False),
        bar,
        TextColumn("{task.fields[rows]:>12} rows  {task.fields[stored]:>9}  {task.fields[rate]:>12} rows/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=error_console()) as progress:
        task = progress.add_task("", total=None, status=Status.QUEUED, rows="0", stored="0 B", rate="-")
        while True:
            current = find()
            progress.update(task, status=format_cell(current.status), **_progress_fields(current))
            if current.status not in {Status.QUEUED, Status.PROCESSING}:
                mark, color = MARKS.get(current.status, OTHER_MARK)
                spinner.finished_text, bar.finished_style = Text(mark, color), color
                progress.update(task, total=1, completed=1)
                return current
            time.sleep(POLL_SECONDS)


def _progress_fields(job: Job) -> dict[str, Any]:
    run = job.run
    if run is None:
        return {}
    seconds = ((run.finished_at or run.heartbeat_at) - run.claimed_at).total_seconds()
    rate = f"{run.rows / seconds:,.0f}" if seconds > 0 else "-"
    return {"rows": f"{run.rows:,}", "stored": format_size(run.bytes), "rate": rate}
