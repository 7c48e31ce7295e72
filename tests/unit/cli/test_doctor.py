"""Settings that are missing or wrong: `doctor` names them without their passwords and goes on with the other checks."""

import os
import re
from pathlib import Path

import pytest

from cli.admin import config, effective_settings
from cli.doctor import Mark, diagnose
from config.settings import Misconfigured, load

PARTS = ["settings", "database", "clickhouse", "storage", "kafka", "mail", "channels"]
NOTHING = dict.fromkeys(
    (
        "DATABASE_URL",
        "CLICKHOUSE_URL",
        "KAFKA_BOOTSTRAP_SERVERS",
        "LANGFUSE_S3_BATCH_EXPORT_BUCKET",
        "SMTP_CONNECTION_URL",
    ),
    "",
)
MALFORMED = [
    ("CLICKHOUSE_URL", "http://waybill:geheim@clickhouse:80x"),
    ("CLICKHOUSE_READ_ONLY_URL", "http://waybill:geheim@clickhouse:99999"),
    ("SMTP_CONNECTION_URL", "smtp://waybill:geheim@smtp:25x"),
    ("SMTP_CONNECTION_URL", "smtp://waybill:ge#heim@smtp:25"),
    ("DATABASE_URL", "postgresql://waybill:geheim@postgres:x/langfuse"),
    ("DATABASE_URL", "postgresql://waybill:ge@heim#1@postgres:5432/langfuse"),
    ("DATABASE_URL", "postgresql://waybill:ge/heim@postgres:5432/langfuse"),
    ("LANGFUSE_S3_BATCH_EXPORT_ENDPOINT", "http://s3:port"),
    ("NEXTAUTH_URL", "https://"),
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("WAYBILL_"):
            monkeypatch.delenv(name)
    for name, value in NOTHING.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LANGFUSE_S3_BATCH_EXPORT_ENABLED", "true")


def test_a_broken_template_of_emails_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "layout.html").write_text("<html>\n{{ colour }}")
    monkeypatch.setenv("EMAIL_FROM_ADDRESS", "exports@example.com")
    monkeypatch.setenv("SMTP_CONNECTION_URL", "smtp://127.0.0.1:1")
    monkeypatch.setenv("WAYBILL_EMAIL_TEMPLATES", str(tmp_path))

    finding = diagnose()["mail"]

    assert finding.mark is Mark.FAILED
    assert finding.reasons == (
        "layout.html, line 2, in WAYBILL_EMAIL_TEMPLATES can't be rendered: 'colour' is undefined",
    )


@pytest.mark.parametrize(("setting", "url"), MALFORMED)
def test_a_malformed_url_is_named_without_its_password_and_hides_no_other_check(
    monkeypatch: pytest.MonkeyPatch, setting: str, url: str
) -> None:
    monkeypatch.setenv(setting, url)

    with pytest.raises(Misconfigured) as raised:
        load()
    findings = diagnose()

    (problem,) = raised.value.problems
    assert problem.startswith(f"{setting}: ")
    assert "heim" not in problem
    assert list(findings) == PARTS
    assert findings["settings"].reasons == (problem,)
    assert "heim" not in str(findings)


def test_each_missing_setting_is_named_by_the_check_that_needs_it() -> None:
    found = {name: each.reasons for name, each in diagnose().items()}

    assert found["database"] == (
        "DATABASE_URL is missing (or set DATABASE_HOST, DATABASE_USERNAME, DATABASE_PASSWORD, DATABASE_NAME)",
    )
    assert found["clickhouse"] == ("CLICKHOUSE_URL is missing",)
    assert found["kafka"] == ("KAFKA_BOOTSTRAP_SERVERS is missing",)
    assert "LANGFUSE_S3_BATCH_EXPORT_BUCKET is missing" in found["storage"][0]


@pytest.mark.parametrize("scheme", ["sftp", "nothing", "svn+ssh"])
def test_the_password_of_a_storage_url_is_never_printed(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("WAYBILL_STORAGE_URL", f"{scheme}://user:geheim@127.0.0.1:9/exports")

    found, shown = diagnose(), effective_settings(load())

    assert found["storage"].reasons
    assert "geheim" not in f"{found} {shown}"
    assert shown["WAYBILL_STORAGE_URL"] == f"{scheme}://user:**********@127.0.0.1:9/exports"


def test_links_that_no_signed_url_can_make_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_EXPORT_DOWNLOAD_LINK_EXPIRATION_HOURS", "720")

    (reason,) = diagnose()["settings"].reasons

    assert reason.startswith("BATCH_EXPORT_DOWNLOAD_LINK_EXPIRATION_HOURS: more than 168 requires WAYBILL_PUBLIC_URL")


@pytest.mark.parametrize("value", ["", "false"])
def test_exports_that_are_off_are_a_warning(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LANGFUSE_S3_BATCH_EXPORT_ENABLED", value)

    found = diagnose()["settings"]

    assert found.mark is Mark.WARNING
    assert found.reasons == (
        "LANGFUSE_S3_BATCH_EXPORT_ENABLED is not true: no export starts, and requests go to the dead-letter topic",
    )


def test_the_settings_in_effect_are_written_as_variables_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WAYBILL_DELETE_EXPIRED", "TRUE")

    config()

    shown = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (shown["LANGFUSE_S3_BATCH_EXPORT_ENABLED"], shown["WAYBILL_DELETE_EXPIRED"]) == ("true", "true")
    assert (shown["WAYBILL_CSV_BOM"], shown["WAYBILL_SLOTS"]) == ("false", "2")
    assert shown["LANGFUSE_S3_BATCH_EXPORT_PREFIX"] == shown["DATABASE_URL"] == shown["WAYBILL_SECRET_KEY"] == "-"
