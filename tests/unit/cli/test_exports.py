import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert
from typer.testing import CliRunner, Result

from cli import build
from cli.create import find_unknown
from cli.main import app
from config.settings import load
from config.tables import projects, users
from consumer.job_store import Jobs
from consumer.models import NewExport
from runtime.database import writing
from tests.support.sqlite import create_all_tables, open_copy

NOW = datetime(2026, 10, 1, 14, 5, tzinfo=UTC)
PROJECT = "cm9x8y7z6w5v4u3t2s1r0q9p0"


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """The job store of the commands' settings, which name an empty database and no Kafka."""
    open_copy(file := tmp_path / "langfuse.db", create_all_tables).dispose()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{file}")
    return build.jobs(load(needs=["DATABASE_URL"]))


def run(*arguments: str) -> Result:
    """Run a command, with results piped."""
    return CliRunner().invoke(app, arguments)


def queue(jobs: Jobs, export_id: str) -> None:
    """Insert a QUEUED export."""
    new = NewExport(id=export_id, project_id=PROJECT, user_id="", name="n", query={"tableName": "traces"}, format="CSV")
    jobs.create(new, NOW)


@pytest.mark.parametrize("typed", ["cancelled", "Cancelled", "CANCELLED"])
def test_the_status_to_list_may_be_in_any_case(jobs: Jobs, typed: str) -> None:
    queue(jobs, "waiting")
    queue(jobs, "ended")
    assert run("cancel", PROJECT, "ended").exit_code == 0

    listed = run("list", "--status", typed, "--json")

    assert [each["id"] for each in json.loads(listed.output)] == ["ended"]


def test_a_status_that_does_not_exist_is_refused() -> None:
    done = run("list", "--status", "done")

    assert (done.exit_code, "'done'" in done.output, "queued" in done.output.lower()) == (2, True, True)


def test_an_unknown_project_or_user_is_reported_before_the_export_starts(jobs: Jobs) -> None:
    with writing(jobs.engine) as connection:
        connection.execute(insert(projects).values(id=PROJECT, name="Known"))
        connection.execute(insert(users), [{"id": "known", "email": "a@example.com"}, {"id": "silent", "email": None}])

    def warn(project: str, user: str) -> list[str]:
        new = NewExport(project_id=project, user_id=user, name="n", query={}, format="CSV")
        return list(find_unknown(jobs.engine, new))

    assert warn(PROJECT, "known") == warn(PROJECT, "") == []
    assert [each.split(", so")[0] for each in warn("absent", "nobody")] == [
        "The database has no project absent",
        "The database has no user nobody",
    ]
    assert warn(PROJECT, "silent") == ["The user silent has no email address, so nobody gets an email."]


def test_a_table_that_cannot_be_read_gives_no_warning(tmp_path: Path) -> None:
    new = NewExport(project_id="p", user_id="u", name="n", query={}, format="CSV")

    assert list(find_unknown(create_engine(f"sqlite:///{tmp_path}/empty.db"), new)) == []


@pytest.mark.parametrize(("project", "export"), [("", "e"), (PROJECT, ""), (PROJECT, "e" * 513)])
def test_no_request_is_published_for_ids_that_no_event_can_have(
    project: str, export: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "nowhere:1")

    done = run("ring", project, export)

    assert (done.exit_code, "1 to 512 characters" in done.output) == (2, True)


def test_a_limit_that_no_database_accepts_is_refused(jobs: Jobs) -> None:
    del jobs
    done = run("list", "--limit", str(2**64))

    assert (done.exit_code, "1000000000" in done.output) == (2, True)
