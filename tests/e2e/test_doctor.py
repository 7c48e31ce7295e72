"""The report of `waybill doctor` about an installation."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, create_engine, delete, text

from config.settings import load
from config.tables import batch_exports
from tests.services.stacks import Stack
from tests.support.daemons import waybill
from tests.support.exports import queue

pytestmark = pytest.mark.slow

PARTS = {"settings", "database", "clickhouse", "storage", "kafka", "mail", "channels"}
LIBRARY_TEXTS = re.compile(
    r"sqlalche\.me|MaxRetryError|HTTPConnection|object at 0x|Http Driver|psycopg|Errno|%3\||Traceback"
)
NOWHERE = {
    "DATABASE_URL": "postgresql://waybill:geheim@127.0.0.1:9/langfuse",
    "CLICKHOUSE_URL": "http://127.0.0.1:9",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "WAYBILL_STORAGE_URL": "",
    "LANGFUSE_S3_BATCH_EXPORT_BUCKET": "exports",
    "LANGFUSE_S3_BATCH_EXPORT_ENDPOINT": "http://127.0.0.1:9",
    "LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID": "a",
    "LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY": "geheim",
    "SMTP_CONNECTION_URL": "smtp://waybill:geheim@127.0.0.1:9",
    "EMAIL_FROM_ADDRESS": "exports@waybill.test",
}


def test_doctor_reports_every_part_and_names_what_is_off_or_wrong(stack: Stack) -> None:
    environment = stack.environment()
    migrated = waybill("migrate", "--with-application-schema", environment=environment)
    assert migrated.returncode == 0, migrated.stderr
    before = stack.objects()

    healthy = waybill("doctor", "--json", environment=environment)
    unused = "WAYBILL_WEBHOOK_URL and WAYBILL_SLACK_WEBHOOK_URL are not set: emails are the only channel"
    assert json.loads(healthy.stdout) == dict.fromkeys(PARTS, "ok") | {"channels": unused}
    assert healthy.returncode == 0
    assert (stack.objects(), stack.uploads(), stack.mails()) == (before, [], [])

    without_email = waybill(
        "doctor", "--json", environment=environment | {"SMTP_CONNECTION_URL": "", "EMAIL_FROM_ADDRESS": ""}
    )
    assert "no emails are sent" in json.loads(without_email.stdout)["mail"]
    assert without_email.returncode == 0

    engine = create_engine(load(environment).database)
    queue(engine, "early", created_at=datetime.now(UTC) + timedelta(hours=9))
    early = waybill("doctor", "--json", environment=environment)
    assert "1 queued exports have a created_at in the future, such as early" in json.loads(early.stdout)["database"]
    assert early.returncode == 0
    with engine.begin() as connection:
        connection.execute(delete(batch_exports))
    engine.dispose()

    wrong = waybill("doctor", "--json", environment=environment | {"CLICKHOUSE_URL": "http://127.0.0.1:9"})
    found = json.loads(wrong.stdout)
    assert found["clickhouse"] != "ok"
    assert {name for name, answer in found.items() if answer == "ok"} == PARTS - {"clickhouse", "channels"}
    assert wrong.returncode == 1


def test_each_failed_check_is_one_sentence_with_its_cause_and_the_setting_to_look_at() -> None:
    failed = waybill("doctor", environment=NOWHERE)

    assert failed.returncode == 1
    assert failed.stderr == ""
    assert LIBRARY_TEXTS.search(failed.stdout) is None
    assert "geheim" not in failed.stdout
    for setting in (
        "DATABASE_URL",
        "CLICKHOUSE_URL",
        "KAFKA_BOOTSTRAP_SERVERS",
        "LANGFUSE_S3_BATCH_EXPORT_ENDPOINT",
        "SMTP_CONNECTION_URL",
    ):
        (line,) = [line for line in failed.stdout.splitlines() if setting in line]
        assert "connection refused" in line.lower()
        assert line.endswith("?")


def test_a_missing_setting_does_not_hide_the_other_checks() -> None:
    found = json.loads(waybill("doctor", "--json", environment=NOWHERE | {"KAFKA_BOOTSTRAP_SERVERS": ""}).stdout)

    assert found.keys() == PARTS
    assert found["kafka"] == "KAFKA_BOOTSTRAP_SERVERS is missing"
    assert sum("onnection refused" in answer for answer in found.values()) == 4


def test_doctor_names_the_rights_that_the_role_lacks(stack: Stack, engine: Engine) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no roles")
    role = "exporter_of_the_doctor"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"))
    try:
        environment = stack.environment()
        environment["DATABASE_URL"] = environment["DATABASE_URL"].replace("waybill@", f"{role}@")
        found = json.loads(waybill("doctor", "--json", environment=environment).stdout)["database"]
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
    assert f"ON batch_exports TO {role}" in found
    assert f"GRANT USAGE ON SEQUENCE waybill_outbox_id_seq TO {role}" in found
    assert f"GRANT INSERT ON waybill_runs TO {role}" in found


@pytest.mark.parametrize("command", ["consumer", "notify", "migrate", "config"])
def test_a_url_that_can_not_be_read_ends_a_command_without_a_part_of_its_password(command: str) -> None:
    refused = waybill(command, environment=NOWHERE | {"DATABASE_URL": "postgresql://u:p@geheim#1@h:5432/db"})

    assert refused.returncode == 2
    assert refused.stderr.count("DATABASE_URL: can't be read") == 1
    assert "geheim" not in refused.stdout + refused.stderr
    assert not LIBRARY_TEXTS.search(refused.stderr)
