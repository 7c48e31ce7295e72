import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import build
from cli.main import _COMMANDS, app, main
from config.settings import load
from consumer.models import NewExport
from tests.support.sqlite import create_all_tables, open_copy

TRACING_SDK = ("opentelemetry.sdk", "opentelemetry.exporter")


def loaded_by(*arguments: str, **environment: str) -> set[str]:
    """Return the modules that a command loads; the event loop of a daemon does not run."""
    script = (
        "import asyncio, sys; from typer.testing import CliRunner; from cli.main import app\n"
        "asyncio.run = lambda daemon: daemon.close()\n"
        f"done = CliRunner().invoke(app, {arguments!r})\n"
        "assert done.exit_code == 0, done.output\n"
        "print(*sys.modules)"
    )
    environment = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return set(done.stdout.split())


@pytest.mark.slow
def test_daemons_load_no_tracing_sdk_and_a_notifier_no_library_that_only_exports_need(tmp_path: Path) -> None:
    exporting = {"pyarrow", "polars", "clickhouse_connect", "fsspec", "s3fs", "aiobotocore"}
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/langfuse.db",
        "KAFKA_BOOTSTRAP_SERVERS": "nowhere:1",
        "SMTP_CONNECTION_URL": "smtp://mail.example",
        "EMAIL_FROM_ADDRESS": "exports@example.com",
        "CLICKHOUSE_URL": "http://nowhere:1",
        "LANGFUSE_S3_BATCH_EXPORT_BUCKET": "exports",
    }

    consumer, notifier = (loaded_by(daemon, **settings) for daemon in ("consumer", "notify"))

    assert exporting <= consumer
    assert not exporting & notifier
    assert not [name for name in consumer | notifier if name.startswith(TRACING_SDK)]


def test_the_help_loads_no_command() -> None:
    assert not {"config", "consumer", "pydantic", "sqlalchemy"} & loaded_by("--help")


def test_commands_that_read_no_rows_load_no_library_for_them() -> None:
    heavy = {"aiohttp", "aiokafka", "clickhouse_connect", "faust", "polars", "pyarrow", "s3fs"}

    assert not heavy & loaded_by("list", "--help")


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_in_the_help_can_be_loaded(name: str) -> None:
    assert name in CliRunner().invoke(app, ["--help"]).output
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize(("typed", "meant"), [("shwo", "show"), ("dead-leters", "dead-letters"), ("notfy", "notify")])
def test_an_unknown_command_gets_a_suggestion(typed: str, meant: str) -> None:
    done = CliRunner().invoke(app, [typed])

    assert done.exit_code == 2
    assert f"Did you mean '{meant}'?" in " ".join(done.output.split())


def test_the_version_is_that_of_the_package() -> None:
    done = CliRunner().invoke(app, ["--version"])

    assert (done.exit_code, done.output) == (0, f"waybill {version('waybill')}\n")


def run_piped(shell: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a line of bash in which `waybill` is the command."""
    line = f'waybill() {{ {shlex.quote(sys.executable)} -m cli.main "$@"; }}; {shell}'
    return subprocess.run(["bash", "-c", line], capture_output=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("command", ["show p", "ring p", "list --project", "create p traces --name", "tables"])
def test_an_argument_that_is_not_utf_8_is_named(command: str) -> None:
    done = run_piped(f"waybill {command} $'a\\xff'", PYTHONUTF8="1")

    assert (done.returncode, done.stderr) == (2, b"waybill: The argument 'a\\udcff' is not valid UTF-8.\n")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a database with an export whose ID is not Latin."""
    open_copy(file := tmp_path / "langfuse.db", create_all_tables).dispose()
    monkeypatch.setenv("DATABASE_URL", url := f"sqlite:///{file}")
    jobs = build.jobs(load(needs=["DATABASE_URL"]))
    new = NewExport(id="東👍", project_id="p", user_id="", name="n", query={"tableName": "traces"}, format="CSV")
    jobs.create(new, datetime(2026, 10, 1, tzinfo=UTC))
    return url


def test_a_locale_that_lacks_a_character_gets_its_escape(database: str) -> None:
    listed, printed = (
        run_piped(f"waybill list {flag}", PYTHONUTF8="0", PYTHONIOENCODING="latin-1", DATABASE_URL=database)
        for flag in ("", "--json")
    )

    assert (listed.returncode, b"\\u6771\\U0001f44d" in listed.stdout) == (0, True)
    assert json.loads(printed.stdout)[0]["id"] == "東👍"


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_runs_with_closed_streams(streams: str, database: str) -> None:
    done = run_piped(f"waybill list {streams}", DATABASE_URL=database)

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("command", ["list", "show p e", "watch p e", "cancel p e", "explain p e"])
def test_a_missing_table_is_named(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/empty.db")
    monkeypatch.setenv("CLICKHOUSE_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(sys, "argv", ["waybill", *command.split()])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "waybill: the database refused a statement: no such table: batch_exports. "
        "`waybill doctor` says what is missing.\n"
    )
