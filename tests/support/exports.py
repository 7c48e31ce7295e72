"""Exports and their surroundings for tests of the consumer."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert, select, update

from config.tables import batch_exports, outbox, runs
from consumer.job_store import ClaimPolicy, Jobs
from consumer.models import Claim, Job
from pipeline.types import ExportResult

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
LEASE = timedelta(seconds=60)
QUERY: dict[str, Any] = {"tableName": "traces", "filter": [], "orderBy": None}
CLAIM_POLICY = ClaimPolicy(lease=LEASE, project_slots=0, completions_topic="export-completions")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def queue(engine: Engine, export_id: str = "export-1", project_id: str = "project-1", **values: Any) -> None:
    row = {
        "id": export_id,
        "project_id": project_id,
        "user_id": "user-1",
        "name": "My export",
        "status": "QUEUED",
        "query": QUERY,
        "format": "CSV",
        "created_at": NOW,
        "updated_at": NOW,
    }
    with engine.begin() as connection:
        connection.execute(insert(batch_exports).values(row | values))


def row_of(engine: Engine, export_id: str = "export-1") -> dict[str, Any]:
    with engine.connect() as connection:
        return dict(connection.execute(select(batch_exports).where(batch_exports.c.id == export_id)).mappings().one())


def runs_of(engine: Engine, export_id: str = "export-1") -> list[dict[str, Any]]:
    query = select(runs).where(runs.c.export_id == export_id).order_by(runs.c.attempt)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def outbox_rows(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(outbox).order_by(outbox.c.id)).mappings()]


def set_status(engine: Engine, status: str, export_id: str = "export-1") -> None:
    with engine.begin() as connection:
        connection.execute(update(batch_exports).where(batch_exports.c.id == export_id).values(status=status))


def job_of(jobs: Jobs, export_id: str = "export-1", project_id: str = "project-1") -> Job:
    job = jobs.find(project_id, export_id)
    assert job is not None
    return job


def claimed(jobs: Jobs, now: datetime = NOW, export_id: str = "export-1", worker: str = "worker-a") -> Claim:
    claim = jobs.claim(job_of(jobs, export_id), worker, now)
    assert isinstance(claim, Claim)
    return claim


def result_of(key: str = "exports/file.csv", rows: int = 3) -> ExportResult:
    return ExportResult(
        key=key,
        rows=rows,
        raw_bytes=200,
        bytes=100,
        sha256="ab" * 32,
        truncated=False,
        columns=("id",),
        cutoff=NOW,
    )
