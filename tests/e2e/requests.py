"""Requests exports in the way a producer does, and reads their status."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Producer
from sqlalchemy import Engine, insert, select

from config.tables import batch_exports, users
from tests.services.stacks import Stack

ROWS = 500
"""Rows of traces in the database of the fixture `sample_data`."""

QUICK = {"WAYBILL_SWEEP_SECONDS": "1", "WAYBILL_HEARTBEAT_SECONDS": "0.5", "WAYBILL_RETRY_BASE_SECONDS": "0.2"}


def insert_export(engine: Engine, **changes: Any) -> str:
    """Insert an export as Langfuse does; returns its id."""
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


def publish_request(stack: Stack, export_id: str, times: int = 1) -> None:
    """Publish the request event of an export."""
    environment = stack.environment()
    publish_request_to(environment["KAFKA_BOOTSTRAP_SERVERS"], environment["WAYBILL_REQUESTS_TOPIC"], export_id, times)


def publish_request_to(servers: str, topic: str, export_id: str, times: int = 1) -> None:
    """Publish the request event of an export to a topic of brokers without TLS."""
    producer = Producer({"bootstrap.servers": servers})
    event = json.dumps({"projectId": "demo", "batchExportId": export_id}).encode()
    for _ in range(times):
        producer.produce(topic, event, key=export_id.encode())
    assert producer.flush(20) == 0


def read_status(engine: Engine, export_id: str) -> str | None:
    """The status on the row of an export."""
    with engine.connect() as connection:
        query = select(batch_exports.c.status).where(batch_exports.c.id == export_id)
        found: str | None = connection.execute(query).scalar()
        return found
