import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cli.main import _COMMANDS, app


def loaded_by(*arguments: str) -> set[str]:
    script = (
        "import sys; from typer.testing import CliRunner; from cli.main import app\n"
        f"assert CliRunner().invoke(app, {arguments!r}).exit_code == 0\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.split())


def test_a_notifier_loads_no_library_that_only_exports_need() -> None:
    exporting = {"pyarrow", "polars", "clickhouse_connect", "fsspec", "s3fs", "aiobotocore"}

    assert exporting <= loaded_by("consumer", "--help")
    assert not exporting & loaded_by("notify", "--help")


def test_the_help_loads_no_command() -> None:
    assert not {"config", "consumer", "pydantic", "sqlalchemy"} & loaded_by("--help")


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_of_the_help_can_be_loaded(name: str) -> None:
    assert name in CliRunner().invoke(app, ["--help"]).output
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize(("asked", "meant"), [("shwo", "show"), ("dead-leters", "dead-letters"), ("notfy", "notify")])
def test_a_command_that_does_not_exist_gets_the_one_that_was_meant(asked: str, meant: str) -> None:
    done = CliRunner().invoke(app, [asked])

    assert done.exit_code == 2
    assert f"Did you mean '{meant}'?" in " ".join(done.output.split())
