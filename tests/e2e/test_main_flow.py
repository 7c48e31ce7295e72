"""The main flow as users see it: from a request event to a complete file and an email."""

import csv
import hashlib
import io
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, select, text, update

from config.settings import load
from config.tables import batch_exports, langfuse, notices, outbox, runs
from runtime.database import open_database
from tests.e2e.requests import QUICK, ROWS, insert_export, publish_request, read_status
from tests.services.stacks import Stack
from tests.support.daemons import daemon, eventually, waybill


def test_a_request_event_leads_to_a_complete_file_and_an_email(
    stack: Stack, sample_data: Engine, tmp_path: Path
) -> None:
    environment = stack.environment() | QUICK

    with daemon("consumer", tmp_path, environment) as consumer, daemon("notify", tmp_path, environment) as notifier:
        export_id = insert_export(sample_data)
        publish_request(stack, export_id)
        eventually(lambda: read_status(sample_data, export_id) == "COMPLETED", what="the export completes")
        (email,) = eventually(stack.mails, what="an email arrives")
        eventually(lambda: notifier.metric("waybill_notices_total", outcome="sent") == 1, what="the email is counted")
        counted = consumer.metric("waybill_rows_total", table="traces", format="CSV")

    (key, manifest_key) = sorted(stack.objects())
    data, manifest = stack.read(key), json.loads(stack.read(manifest_key))
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    assert manifest_key == f"{key}.manifest.json"
    assert len(rows) == ROWS == manifest["rows"] == counted
    assert {row["id"] for row in rows} == {f"trace-{number:07}" for number in range(ROWS)}
    assert (len(data), hashlib.sha256(data).hexdigest()) == (manifest["bytes"], manifest["sha256"])
    assert stack.uploads() == []
    assert email.message["Subject"] == "Your data export is ready"
    assert "500" in str(email.message.get_body(("plain",)))


@pytest.mark.slow
def test_five_requests_to_two_consumers_lead_to_one_file_and_one_email(
    stack: Stack, sample_data: Engine, tmp_path: Path
) -> None:
    environment = stack.environment() | QUICK
    own_group = {"WAYBILL_CONSUMER_GROUP": uuid.uuid4().hex}  # in another group, it gets every request too

    with (
        daemon("consumer", tmp_path, environment) as one,
        daemon("consumer", tmp_path, environment | own_group) as other,
        daemon("notify", tmp_path, environment) as notifier,
    ):
        export_id = insert_export(sample_data)
        publish_request(stack, export_id, times=5)
        eventually(lambda: read_status(sample_data, export_id) == "COMPLETED", what="the export completes")
        eventually(
            lambda: sum(each.metric("waybill_requests_total") for each in (one, other)) == 10,
            what="all requests are handled",
        )
        eventually(lambda: notifier.metric("waybill_notices_total", outcome="sent") == 1, what="an email is sent")
        completed = sum(each.metric("waybill_exports_total", outcome="completed") for each in (one, other))

    with sample_data.connect() as connection:
        attempts = connection.execute(select(runs.c.attempt).where(runs.c.export_id == export_id)).all()
        states = connection.execute(select(notices.c.state)).all()
    assert (completed, len(attempts), len(states), len(stack.mails()), len(stack.objects())) == (1, 1, 1, 1, 2)


@pytest.mark.slow
def test_keys_that_a_newer_langfuse_adds_are_left_out_and_announced(
    stack: Stack, sample_data: Engine, tmp_path: Path
) -> None:
    environment = stack.environment() | QUICK
    known = {"type": "string", "column": "id", "operator": "ends with", "value": "7"}
    query = {"tableName": "traces", "filter": [known | {"caseSensitive": False}], "orderBy": None, "timeZone": "UTC"}

    with daemon("consumer", tmp_path, environment) as consumer, daemon("notify", tmp_path, environment):
        export_id = insert_export(sample_data, query=query)
        publish_request(stack, export_id)
        (email,) = eventually(stack.mails, what="an email arrives")
        counted = consumer.metric("waybill_exports_with_unknown_keys_total", table="traces")

    manifest = json.loads(stack.read(max(stack.objects())))
    with sample_data.connect() as connection:
        event = json.loads(connection.execute(select(outbox.c.payload)).scalar_one())
    assert (manifest["rows"], counted) == (ROWS // 10, 1)
    assert manifest["ignored"] == event["ignored"] == ["timeZone", "filter[0].caseSensitive"]
    assert "were ignored: timeZone, filter[0].caseSensitive." in str(
        email.message.get_body(("plain",)).get_content()  # type: ignore[union-attr] # every email has one
    )
    assert any("timeZone" in log.read_text() and export_id in log.read_text() for log in tmp_path.glob("*.log"))


def filtered(**changes: str) -> dict[str, Any]:
    each = {"type": "string", "column": "userId", "operator": "=", "value": "red"} | changes
    return {"query": {"tableName": "traces", "filter": [each], "orderBy": None}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"query": {"tableName": "tracez", "filter": [], "orderBy": None}}, "tracez"),
    ({"query": {"tableName": "prompts", "filter": [], "orderBy": None}}, "'prompts' can't be exported"),
    ({"query": {"tableName": "traces", "filter": "no", "orderBy": None}}, "filter"),
    ({"query": []}, "query"),
    (filtered(column="colour"), "colour"),
    (filtered(operator="near"), "operator"),
    (filtered(type="number"), "value"),
    ({"query": {"tableName": "traces", "filter": [], "orderBy": {"column": "size", "order": "ASC"}}}, "size"),
    ({"format": "XLSX"}, "XLSX"),
]


@pytest.mark.slow
def test_an_invalid_query_fails_immediately_and_names_the_reason(
    stack: Stack, sample_data: Engine, tmp_path: Path
) -> None:
    environment = stack.environment() | QUICK

    with daemon("consumer", tmp_path, environment), daemon("notify", tmp_path, environment):
        ids = [insert_export(sample_data, **changes) for changes, _ in REFUSED]
        for export_id in ids:
            publish_request(stack, export_id)
        emails = eventually(
            lambda: found if len(found := stack.mails()) == len(REFUSED) else None, what="an email for each"
        )

    texts = [str(email.message.get_body(("plain",))) for email in emails]
    for export_id, (_, reason) in zip(ids, REFUSED, strict=True):
        with sample_data.connect() as connection:
            row = connection.execute(select(batch_exports).where(batch_exports.c.id == export_id)).one()
            attempts = connection.execute(select(runs.c.attempt).where(runs.c.export_id == export_id)).all()
        assert (row.status, len(attempts)) == ("FAILED", 1)
        assert reason in row.log
        assert any(reason in text for text in texts)
    assert stack.objects() == {}


@pytest.mark.slow
def test_a_stale_row_fails_and_asks_the_user_to_start_again(stack: Stack, sample_data: Engine, tmp_path: Path) -> None:
    environment = stack.environment() | QUICK

    with daemon("consumer", tmp_path, environment):
        export_id = insert_export(sample_data, created_at=datetime(2025, 1, 1, tzinfo=UTC))
        publish_request(stack, export_id)
        eventually(lambda: read_status(sample_data, export_id) == "FAILED", what="the export fails")

    with sample_data.connect() as connection:
        log = connection.execute(select(batch_exports.c.log).where(batch_exports.c.id == export_id)).scalar()
    assert "start it again" in str(log)


def test_migrate_adds_only_waybills_tables_to_langfuses_database(stack: Stack) -> None:
    environment = stack.environment()
    engine = open_database(load(environment).database)
    langfuse.create_all(engine)
    before = {name: inspect(engine).get_columns(name) for name in inspect(engine).get_table_names()}

    done = waybill("migrate", environment=environment)

    after = {name: inspect(engine).get_columns(name) for name in inspect(engine).get_table_names()}
    engine.dispose()
    assert done.returncode == 0, done.stderr
    assert all(name.startswith("waybill_") for name in after.keys() - before.keys())
    assert {"waybill_runs", "waybill_outbox", "waybill_notices"} <= after.keys()
    assert {name: str(after[name]) for name in before} == {name: str(columns) for name, columns in before.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("sample_data")
def test_the_command_creates_an_export_waits_for_it_and_shows_it(stack: Stack, tmp_path: Path) -> None:
    environment = stack.environment() | QUICK

    with daemon("consumer", tmp_path, environment):
        created = waybill(
            "create", "demo", "traces", "--format", "jsonl", "--compression", "gzip", "--wait", "--json",
            environment=environment,
        )  # fmt: skip
        refused = waybill("create", "demo", "nothing", environment=environment)
        cancelled = waybill("cancel", "demo", json.loads(created.stdout)["id"], environment=environment)
        listed = waybill("list", "--json", environment=environment)

    shown = json.loads(created.stdout)
    assert created.returncode == 0, created.stderr
    assert (shown["status"], shown["rows"], shown["attempt"]) == ("COMPLETED", ROWS, 1)
    assert shown["key"].endswith(".jsonl.gz")
    assert (refused.returncode, "nothing" in refused.stderr) == (2, True)
    assert (cancelled.returncode, "COMPLETED" in cancelled.stderr) == (1, True)
    assert [each["id"] for each in json.loads(listed.stdout)] == [shown["id"]]


@pytest.mark.slow
@pytest.mark.usefixtures("sample_data")
def test_a_file_has_the_columns_that_the_command_names(stack: Stack, tmp_path: Path) -> None:
    environment = stack.environment() | QUICK
    command = ("create", "demo", "traces", "--format", "jsonl", "--wait", "--json", "--columns")

    with daemon("consumer", tmp_path, environment):
        whole = waybill(*command[:-1], environment=environment)
        named = waybill(*command, "name, comments, scores, id", environment=environment)
        failed = waybill(*command, "id,scores.nothing", environment=environment)

    key, of_whole = (json.loads(done.stdout)["key"] for done in (named, whole))
    manifest, complete = (json.loads(stack.read(f"{each}.manifest.json")) for each in (key, of_whole))
    scores = complete["columns"][complete["columns"].index("comments") + 1 :]
    assert len(scores) > 1
    assert manifest["columns"] == ["name", "comments", *scores, "id"]
    assert manifest["query"]["columns"] == ["name", "comments", "scores", "id"]
    rows = [json.loads(line) for line in stack.read(key).decode().rstrip("\n").split("\n")]
    assert ([list(row) for row in rows], len(rows)) == ([manifest["columns"]] * ROWS, ROWS)
    assert (failed.returncode, json.loads(failed.stdout)["status"]) == (1, "FAILED")
    assert f"has no score 'nothing'. Its scores: {scores[0]}" in json.loads(failed.stdout)["log"]


@pytest.mark.slow
def test_langfuses_enums_and_json_types_are_exported(stack: Stack, sample_data: Engine, tmp_path: Path) -> None:
    environment = stack.environment() | QUICK
    if sample_data.dialect.name == "postgresql":
        with sample_data.begin() as connection:
            connection.execute(text("CREATE TYPE kind AS ENUM ('TRACE', 'OBSERVATION', 'SESSION', 'PROMPT')"))
            connection.execute(text("ALTER TABLE comments ALTER object_type TYPE kind USING object_type::kind"))

    with daemon("consumer", tmp_path, environment):
        export_id = insert_export(sample_data, format="JSONL")
        publish_request(stack, export_id)
        eventually(lambda: read_status(sample_data, export_id) == "COMPLETED", what="the export completes")

    key = min(stack.objects())
    comments = [json.loads(line)["comments"] for line in stack.read(key).decode().rstrip("\n").split("\n")]
    assert any(comments)
    assert all(set(each) == {"id", "content", "author_email", "created_at"} for cell in comments for each in cell)


@pytest.mark.slow
def test_an_export_cancelled_before_it_starts_is_not_run(stack: Stack, sample_data: Engine, tmp_path: Path) -> None:
    environment = stack.environment() | QUICK
    export_id = insert_export(sample_data)
    with sample_data.begin() as connection:
        connection.execute(update(batch_exports).where(batch_exports.c.id == export_id).values(status="CANCELLED"))

    with daemon("consumer", tmp_path, environment) as consumer:
        publish_request(stack, export_id)
        eventually(lambda: consumer.metric("waybill_requests_total", verdict="cancelled") == 1, what="it is skipped")

    assert (read_status(sample_data, export_id), stack.objects()) == ("CANCELLED", {})
