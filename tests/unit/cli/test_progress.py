from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import typer

from cli.progress import INTERRUPTED, follow_or_leave, follow_progress
from config.events import Status
from consumer.models import Job

NOW = datetime(2026, 10, 1, 14, 5, tzinfo=UTC)
QUEUED = Job(
    id="export 1",
    project_id="p",
    user_id="",
    name="n",
    status=Status.QUEUED,
    format="CSV",
    query={"tableName": "traces"},
    created_at=NOW,
    updated_at=NOW,
    finished_at=None,
    expires_at=None,
    url=None,
    log=None,
    run=None,
)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_only_a_completed_export_has_a_tick(status: Status, capsys: pytest.CaptureFixture[str]) -> None:
    ended = follow_progress(lambda: replace(QUEUED, status=status))

    printed = capsys.readouterr()
    assert ended.status == status
    assert printed.out == ""
    assert status in printed.err
    assert ("✓" in printed.err) is (status == Status.COMPLETED)
    assert ("✗" in printed.err) is (status == Status.FAILED)


def test_a_status_that_nobody_knows_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    follow_progress(lambda: replace(QUEUED, status="[red]:x:\x1b[2J"))

    assert "[red]:x:\\x1b[2J" in capsys.readouterr().err


def test_after_ctrl_c_the_export_continues_and_can_be_followed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        follow_or_leave(interrupt_after_one(QUEUED))

    said = capsys.readouterr().err
    assert ended.value.exit_code == INTERRUPTED
    assert "The export continues" in said
    assert "waybill watch p 'export 1'" in said


def interrupt_after_one(job: Job) -> Callable[[], Job]:
    """Return what reads a job once, and is interrupted by Ctrl-C then."""

    def read() -> Iterator[Job]:
        yield job
        raise KeyboardInterrupt

    reading = read()
    return lambda: next(reading)
