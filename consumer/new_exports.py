"""Creates exports: checks the request, inserts the row, and publishes the event."""

import hashlib
from datetime import datetime

from sqlalchemy.exc import IntegrityError

from config.errors import Rejected, Unavailable
from config.events import ExportRequested, are_valid_ids
from consumer import rows
from consumer.job_store import Jobs
from consumer.models import Job, NewExport, Unreadable
from pipeline.query.choose_columns import check_columns
from pipeline.query.resolve_columns import resolve_query
from pipeline.request import ExportQuery
from pipeline.spec import read_spec
from pipeline.tables import resolve_table
from runtime.publisher import Outgoing, Publisher


def make_id(project_id: str, key: str) -> str:
    """Return the id of the export that a key stands for: the same key finds the same export of a project."""
    return hashlib.sha256(f"{project_id}\0{key}".encode()).hexdigest()[:32]


def check_new(new: NewExport, now: datetime) -> None:
    """Raise Rejected, with the reason, for an export that would fail because of its request."""
    if not are_valid_ids(new.project_id, new.id):
        raise Rejected("The ID of the project must have 1 to 512 characters, and no NUL.")
    try:
        rows.check_query(new.query)
    except Unreadable as error:
        raise Rejected(f"The query can't be stored: {error}.") from error
    spec = read_spec(
        project_id=new.project_id,
        export_id=new.id,
        attempt=1,
        created_at=now,
        query=new.query,
        format=new.format,
    )
    check_query(spec.query)


def check_query(query: ExportQuery) -> None:
    """Raise Rejected for a filter, an order or a column that the table can't honour, as the export would."""
    table = resolve_table(query)
    resolve_query(table, query)
    check_columns(table, query)


def create_once(jobs: Jobs, new: NewExport, now: datetime) -> tuple[Job, bool]:
    """Insert an export, or find the one that has its id already; returns it, and whether it was inserted.

    Raises Rejected if the export with this id has different content, and Unavailable.
    """
    try:
        return jobs.create(new, now), True
    except IntegrityError:
        job = jobs.find(new.project_id, new.id)
        if job is None:
            raise
    if _contents(job) != _contents(new):
        raise Rejected("Another export was created with the same key: use a new key for each export.")
    return job, False


def _contents(export: Job | NewExport) -> tuple[object, ...]:
    return export.user_id, export.name, export.query, export.format


def publish_request(publisher: Publisher, topic: str, project_id: str, export_id: str) -> None:
    """Publish the request for an export; raises Unavailable, and a sweeper starts the export nevertheless."""
    event = ExportRequested(project_id=project_id, batch_export_id=export_id)
    (error,) = publisher.publish([Outgoing(topic, export_id.encode(), event.encode())])
    if error is not None:
        raise Unavailable(
            f"Kafka did not accept the request for {export_id}: {error.str()}. The sweeper will start the export."
        )
