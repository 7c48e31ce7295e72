"""What the demo says when its export has no file."""

from pathlib import Path

from cli.demo import describe_failure
from tests.unit.consumer.test_guards import a_job


def test_a_cancelled_export_has_no_reason() -> None:
    assert describe_failure(a_job("CANCELLED"), Path("data")) == "The export ended CANCELLED; the logs are in data"


def test_a_failed_export_has_its_reason() -> None:
    text = describe_failure(a_job("FAILED", log="The column 'x' is unknown."), Path("data"))
    assert text == "The export ended FAILED: The column 'x' is unknown; the logs are in data"
