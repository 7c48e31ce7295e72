"""A misspelt variable is reported, and a variable of Kubernetes is not."""

import os

import pytest

from cli import daemons
from cli.doctor import Mark, diagnose
from config.settings import Misconfigured, list_unknown, load


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("WAYBILL_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WAYBILL_SLOT", "WAYBILL_SLOTS"),
        ("WAYBIL_SLOTS", "WAYBILL_SLOTS"),
        ("WAYBLIL_SLOTS", "WAYBILL_SLOTS"),
        ("WAYBILL_LOGLEVEL", "WAYBILL_LOG_LEVEL"),
        ("WAYBILL_CSV_NEUTRALIZE_FORMULAS", "WAYBILL_CSV_NEUTRALISE_FORMULAS"),
        ("WAYBILL_SERVICE_HOTS", None),
        ("waybill_slot", "WAYBILL_SLOTS"),
    ],
)
def test_an_unknown_name_is_reported_with_the_likely_setting(name: str, meant: str | None) -> None:
    (found,) = list_unknown({name: "9"})

    assert found.startswith(f"{name} is not a setting: ")
    assert meant is None or found.endswith(f"did you mean {meant}?")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WAYBILL_SLOTS", "2"),
        ("waybill_slots", "2"),
        ("WAYBILL_CONSUMER_SERVICE_HOST", "10.0.0.1"),
        ("WAYBILL_CONSUMER_SERVICE_PORT", "6065"),
        ("WAYBILL_CONSUMER_SERVICE_PORT_HTTP", "6065"),
        ("WAYBILL_CONSUMER_PORT", "tcp://10.0.0.1:6065"),
        ("WAYBILL_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("WAYBILL_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("WALL_CLOCK", "x"),
        ("WAYLAND_DISPLAY", "wayland-0"),
    ],
)
def test_settings_and_the_addresses_of_services_are_not_reported(name: str, value: str) -> None:
    assert list_unknown({name: value}) == []


def test_unknown_names_are_errors_in_strict_mode() -> None:
    assert load({"WAYBILL_SLOT": "9"}).slots == 2
    with pytest.raises(Misconfigured) as raised:
        load({"WAYBILL_SLOT": "9", "WAYBILL_STRICT_SETTINGS": "true"})

    assert raised.value.problems == ["WAYBILL_SLOT is not a setting: did you mean WAYBILL_SLOTS?"]


def test_a_daemon_warns_of_them_at_start(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(daemons, "set_up_logging", lambda *_: None)
    monkeypatch.setenv("WAYBILL_SLOT", "9")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")

    daemons._start(())

    (record,) = caplog.records
    assert (record.levelname, record.message) == (
        "WARNING",
        "WAYBILL_SLOT is not a setting: did you mean WAYBILL_SLOTS?",
    )


@pytest.mark.parametrize(("strict", "mark"), [("", Mark.WARNING), ("true", Mark.FAILED)])
def test_the_doctor_reports_them_once(monkeypatch: pytest.MonkeyPatch, strict: str, mark: Mark) -> None:
    monkeypatch.setenv("LANGFUSE_S3_BATCH_EXPORT_ENABLED", "true")
    monkeypatch.setenv("WAYBILL_SLOT", "9")
    monkeypatch.setenv("WAYBILL_STRICT_SETTINGS", strict)

    found = diagnose()["settings"]

    assert (found.mark, len(found.reasons)) == (mark, 1)
