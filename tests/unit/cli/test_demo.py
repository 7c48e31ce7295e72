from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.demo import describe_failure
from cli.main import app
from tests.unit.consumer.test_guards import a_job


def test_a_cancelled_export_has_no_reason() -> None:
    assert describe_failure(a_job("CANCELLED")) == "The export ended CANCELLED."


def test_a_failed_export_has_its_reason() -> None:
    text = describe_failure(a_job("FAILED", log="The column 'x' is unknown."))
    assert text == "The export ended FAILED: The column 'x' is unknown."


@pytest.mark.parametrize(("option", "value"), [("--format", "xls"), ("--table", "tracez"), ("--compression", "rar")])
def test_a_wrong_request_is_refused_before_anything_starts(
    option: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    done = CliRunner().invoke(app, ["demo", option, value])

    assert (done.exit_code, done.stdout) == (2, "")
    assert value in done.stderr.lower()
    assert list(tmp_path.iterdir()) == []
