"""The producer that the docs show works as it stands, and the docs lead to files that there are."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from sqlalchemy import create_engine, select

from config.events import read_request
from config.kafka import client_config
from config.settings import load
from config.tables import batch_exports
from tests.chart.tools import ROOT
from tests.e2e.daemons import waybill
from tests.services.stacks import RealStack, Stack

DOCS = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("path", [*DOCS, ROOT / "helm/README.md"], ids=lambda path: path.stem)
def test_links_between_files_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())

    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_the_python_producer_asks_for_an_export(stack: Stack, tmp_path: Path) -> None:
    if not isinstance(stack, RealStack):
        pytest.skip("it speaks to Postgres")
    environment, settings = stack.environment(), load(stack.environment())
    assert waybill("migrate", "--with-application-schema", environment=environment).returncode == 0
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/producers.md").read_text(), re.DOTALL)
    producer = tmp_path / "producer.py"
    producer.write_text(code.replace('"export-requests"', repr(settings.requests_topic)))

    told = subprocess.run(
        [sys.executable, producer, "my-project", "someone"],
        env={**os.environ, **environment},
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
    consumer = Consumer({**client_config(settings), "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.subscribe([settings.requests_topic])
    message = consumer.poll(60)
    consumer.close()
    assert message is not None
    assert message.key() == export.encode()
    assert read_request(message.value()).batch_export_id == export
