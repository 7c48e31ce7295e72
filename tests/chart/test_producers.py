"""The producers in docs/producers.md work as they are."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from sqlalchemy import create_engine, select

from cli import build
from config.events import Status, read_request
from config.settings import load
from config.tables import batch_exports
from consumer.models import NewExport
from runtime.kafka_clients import client_config
from tests.chart.tools import ROOT, kept
from tests.services.installed import pinned
from tests.services.stacks import RealStack, Stack
from tests.support.daemons import daemon, eventually, waybill


def example(language: str, topic: str) -> str:
    """The first producer of the docs in a language, publishing to a topic of the test's own."""
    found = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/producers.md").read_text(), re.DOTALL)
    code: str = found[0]
    assert "export-requests" in code
    return code.replace("export-requests", topic)


def in_node(topic: str, folder: Path) -> list[str | Path]:
    """The command that runs the producer in Node."""
    client = kept(f"platformatic-kafka-{pinned()['PLATFORMATIC_KAFKA']}")
    (folder / "node_modules").symlink_to(client / "node_modules")
    (folder / "producer.mjs").write_text(example("js", topic))
    return ["node", folder / "producer.mjs"]


def in_go(topic: str, folder: Path) -> list[str | Path]:
    """Build the producer in Go; the command that runs it."""
    shutil.copytree(kept(f"kafka-go-{pinned()['KAFKA_GO']}"), folder, dirs_exist_ok=True)
    (folder / "main.go").write_text(example("go", topic))
    subprocess.run(["go", "build", "-o", "producer", "."], cwd=folder, check=True)
    return [folder / "producer"]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_the_python_producer_asks_for_an_export(stack: Stack, tmp_path: Path, zone: str) -> None:
    if not isinstance(stack, RealStack):
        pytest.skip("it speaks to Postgres")
    environment, settings = stack.environment(), load(stack.environment())
    assert waybill("migrate", "--with-application-schema", environment=environment).returncode == 0
    producer = tmp_path / "producer.py"
    producer.write_text(example("python", settings.requests_topic))

    told = subprocess.run(
        [sys.executable, producer, "my-project", "someone"],
        env={**os.environ, **environment, "PGTZ": zone},
        capture_output=True,
        text=True,
        check=True,
    )

    export = told.stdout.strip()
    engine = create_engine(settings.database)
    with engine.connect() as connection:
        row = connection.execute(select(batch_exports).where(batch_exports.c.id == export)).one()
    engine.dispose()
    assert (row.project_id, row.user_id, row.status, row.format) == ("my-project", "someone", "QUEUED", "CSV")
    assert abs(row.created_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert row.updated_at == row.created_at
    consumer = Consumer({**client_config(settings), "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.subscribe([settings.requests_topic])
    message = consumer.poll(60)
    consumer.close()
    assert message is not None
    assert message.key() == export.encode()
    assert read_request(message.value()).batch_export_id == export


@pytest.mark.parametrize("producer", [in_node, in_go])
def test_a_request_from_another_language_is_exported(
    producer: Callable[[str, Path], list[str | Path]], stack: Stack, tmp_path: Path
) -> None:
    if not isinstance(stack, RealStack):
        pytest.skip("the embedded broker does not know the requests of every client")
    environment = {**stack.environment(), "WAYBILL_SWEEP_SECONDS": "3600"}
    assert waybill("migrate", "--with-application-schema", environment=environment).returncode == 0
    settings = load(environment)
    folder = tmp_path / "producer"
    folder.mkdir()
    command = producer(settings.requests_topic, folder)
    jobs = build.jobs(settings)

    with daemon("consumer", tmp_path, environment):
        query: dict[str, Any] = {"tableName": "traces", "filter": [], "orderBy": None}
        new = NewExport(project_id="my-project", user_id="someone", name="All traces", query=query, format="CSV")
        job = jobs.create(new, datetime.now(UTC))
        subprocess.run([*command, job.project_id, job.id], env={**os.environ, **environment}, timeout=120, check=True)

        def ended() -> str | None:
            found = jobs.find(job.project_id, job.id)
            return found.status if found and found.status in {Status.COMPLETED, Status.FAILED} else None

        assert eventually(ended, what="the export to end") == Status.COMPLETED
    jobs.engine.dispose()
