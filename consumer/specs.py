"""Reads what is to be exported from the stored row of a job."""

from consumer.models import Job
from pipeline.spec import ExportSpec, read_spec


def spec_of(
    job: Job, attempt: int, *, row_limit: int | None = None, prefix: str = "", csv_neutralise: bool = True
) -> ExportSpec:
    """Read one attempt at a job; the settings say how its file is written. Raises Rejected."""
    return read_spec(
        project_id=job.project_id,
        export_id=job.id,
        attempt=attempt,
        created_at=job.created_at,
        query=job.query,
        format=job.format,
        row_limit=row_limit,
        prefix=prefix,
        csv_neutralise=csv_neutralise,
    )
