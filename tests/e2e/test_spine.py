"""The main job as its users see it: from an event on Kafka to a whole file and a mail."""

import csv
import hashlib
import io
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from sqlalchemy import Engine, insert, inspect, select, text, update

from cli import build
from config.settings import load
from config.tables import batch_exports, langfuse, notices, runs, users
from embedded.sample import fill
from embedded.schema import create_clickhouse_tables
from runtime.database import open_database
from runtime.migrations import migrate
from tests.services.stacks import Stack
from tests.support.daemons import daemon, eventually, waybill

ROWS = 500
QUICK = {"WAYBILL_SWEEP_SECONDS": "1", "WAYBILL_HEARTBEAT_SECONDS": "0.5", "WAYBILL_RETRY_BASE_SECONDS": "0.2"}


@pytest.fixture
def engine(stack: Stack) -> Iterator[Engine]:
    """An application's database with data in it, and its ClickHouse; Waybill has been migrated."""
    settings = load(stack.environment())
    opened = open_database(settings.database)
    langfuse.create_all(opened)
    migrate(opened)
    with build.clickhouse_client(settings) as client:
        create_clickhouse_tables(client)
        fill(client, opened, rows=ROWS)
    yield opened
    opened.dispose()


def ask(engine: Engine, **changes: Any) -> str:
    """Insert an export as the application does; returns its id."""
    with engine.begin() as connection:
        user = connection.execute(select(users.c.id).where(users.c.email.is_not(None)).order_by(users.c.id)).scalar()
        row: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "project_id": "demo",
            "user_id": user,
            "name": "All traces",
            "status": "QUEUED",
            "query": {"tableName": "traces", "filter": [], "orderBy": None},
            "format": "CSV",
            "created_at": datetime.now(UTC),
        } | changes
        connection.execute(insert(batch_exports).values(row))
    return str(row["id"])


def ring(stack: Stack, export_id: str, times: int = 1) -> None:
    environment = stack.environment()
    producer = Producer({"bootstrap.servers": environment["KAFKA_BOOTSTRAP_SERVERS"]})
    event = json.dumps({"projectId": "demo", "batchExportId": export_id}).encode()
    for _ in range(times):
        producer.produce(environment["WAYBILL_REQUESTS_TOPIC"], event, key=export_id.encode())
    assert producer.flush(20) == 0


def status(engine: Engine, export_id: str) -> str | None:
    with engine.connect() as connection:
        query = select(batch_exports.c.status).where(batch_exports.c.id == export_id)
        found: str | None = connection.execute(query).scalar()
        return found


def test_an_event_becomes_a_whole_file_and_a_mail(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    environment = stack.environment() | QUICK

    with daemon("consumer", tmp_path, environment) as consumer, daemon("notify", tmp_path, environment) as notifier:
        export_id = ask(engine)
        ring(stack, export_id)
        eventually(lambda: status(engine, export_id) == "COMPLETED", what="the export completes")
        (mail,) = eventually(stack.mails, what="a mail arrives")
        eventually(lambda: notifier.metric("waybill_notices_total", outcome="sent") == 1, what="the mail is counted")
        counted = consumer.metric("waybill_rows_total", table="traces", format="CSV")

    (key, manifest_key) = sorted(stack.objects())
    data, manifest = stack.read(key), json.loads(stack.read(manifest_key))
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    assert manifest_key == f"{key}.manifest.json"
    assert len(rows) == ROWS == manifest["rows"] == counted
    assert {row["id"] for row in rows} == {f"trace-{number:07}" for number in range(ROWS)}
    assert (len(data), hashlib.sha256(data).hexdigest()) == (manifest["bytes"], manifest["sha256"])
    assert stack.uploads() == []
    assert mail.message["Subject"] == "Your data export is ready"
    assert "500" in str(mail.message.get_body(("plain",)))


def test_five_requests_to_two_consumers_are_one_file_and_one_mail(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    environment = stack.environment() | QUICK
    apart = {"WAYBILL_CONSUMER_GROUP": uuid.uuid4().hex}  # in a group of its own, it gets every request too

    with (
        daemon("consumer", tmp_path, environment) as one,
        daemon("consumer", tmp_path, environment | apart) as other,
        daemon("notify", tmp_path, environment) as notifier,
    ):
        export_id = ask(engine)
        ring(stack, export_id, times=5)
        eventually(lambda: status(engine, export_id) == "COMPLETED", what="the export completes")
        eventually(
            lambda: sum(each.metric("waybill_requests_total") for each in (one, other)) == 10,
            what="all requests are answered",
        )
        eventually(lambda: notifier.metric("waybill_notices_total", outcome="sent") == 1, what="a mail is sent")
        completed = sum(each.metric("waybill_exports_total", outcome="completed") for each in (one, other))

    with engine.connect() as connection:
        attempts = connection.execute(select(runs.c.attempt).where(runs.c.export_id == export_id)).all()
        told = connection.execute(select(notices.c.state)).all()
    assert (completed, len(attempts), len(told), len(stack.mails()), len(stack.objects())) == (1, 1, 1, 1, 2)


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


def test_what_cannot_be_honoured_fails_at_once_by_name(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    environment = stack.environment() | QUICK

    with daemon("consumer", tmp_path, environment), daemon("notify", tmp_path, environment):
        ids = [ask(engine, **changes) for changes, _ in REFUSED]
        for export_id in ids:
            ring(stack, export_id)
        mails = eventually(
            lambda: found if len(found := stack.mails()) == len(REFUSED) else None, what="a mail for each"
        )

    texts = [str(mail.message.get_body(("plain",))) for mail in mails]
    for export_id, (_, said) in zip(ids, REFUSED, strict=True):
        with engine.connect() as connection:
            row = connection.execute(select(batch_exports).where(batch_exports.c.id == export_id)).one()
            attempts = connection.execute(select(runs.c.attempt).where(runs.c.export_id == export_id)).all()
        assert (row.status, len(attempts)) == ("FAILED", 1)
        assert said in row.log
        assert any(said in text for text in texts)
    assert stack.objects() == {}


def test_a_stale_row_fails_and_asks_to_start_again(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    environment = stack.environment() | QUICK

    with daemon("consumer", tmp_path, environment):
        export_id = ask(engine, created_at=datetime(2025, 1, 1, tzinfo=UTC))
        ring(stack, export_id)
        eventually(lambda: status(engine, export_id) == "FAILED", what="the export fails")

    with engine.connect() as connection:
        log = connection.execute(select(batch_exports.c.log).where(batch_exports.c.id == export_id)).scalar()
    assert "start it again" in str(log)


def test_migrate_adds_our_tables_to_an_applications_database_and_no_others(stack: Stack) -> None:
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


@pytest.mark.usefixtures("engine")
def test_the_command_creates_waits_and_shows(stack: Stack, tmp_path: Path) -> None:
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


def test_the_applications_enums_and_json_types_are_no_trouble(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    environment = stack.environment() | QUICK
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text("CREATE TYPE kind AS ENUM ('TRACE', 'OBSERVATION', 'SESSION', 'PROMPT')"))
            connection.execute(text("ALTER TABLE comments ALTER object_type TYPE kind USING object_type::kind"))

    with daemon("consumer", tmp_path, environment):
        export_id = ask(engine, format="JSONL")
        ring(stack, export_id)
        eventually(lambda: status(engine, export_id) == "COMPLETED", what="the export completes")

    key = min(stack.objects())
    comments = [json.loads(line)["comments"] for line in stack.read(key).decode().rstrip("\n").split("\n")]
    assert any(comments)
    assert all(set(each) == {"id", "content", "author_email", "created_at"} for cell in comments for each in cell)


def test_cancelled_before_it_starts_it_is_left_alone(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    environment = stack.environment() | QUICK
    export_id = ask(engine)
    with engine.begin() as connection:
        connection.execute(update(batch_exports).where(batch_exports.c.id == export_id).values(status="CANCELLED"))

    with daemon("consumer", tmp_path, environment) as consumer:
        ring(stack, export_id)
        eventually(lambda: consumer.metric("waybill_requests_total", verdict="cancelled") == 1, what="it is skipped")

    assert (status(engine, export_id), stack.objects()) == ("CANCELLED", {})
