import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import _COMMANDS, app

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
