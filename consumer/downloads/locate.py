"""Finds the file that a download link leads to, or the reason why there is none."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from config.errors import Rejected
from config.events import Status
from config.labels import NoFile
from consumer.attempt import read_job_spec
from consumer.job_store import Jobs
from consumer.models import Job, Unreadable
from pipeline.storage import Storage
from pipeline.types import OutputOptions

REDIRECT_LIFETIME = timedelta(minutes=10)
SHORTEST_LIFETIME = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class NoDownload:
    """Why there is no file; `reason` is the text for the user of a failed export."""

    why: NoFile
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that can be downloaded; `url` is the store's, valid for a short time."""

    url: str
    name: str
    content_type: str
    bytes: int
    sha256: str


def locate(jobs: Jobs, storage: Storage, ids: tuple[str, str], now: datetime) -> File | NoDownload:
    """Look up an export by its project id and id, and its file in the store; raises Unavailable."""
    try:
        job = jobs.find(*ids)
    except Unreadable:
        job = None
    if job is None:
        return NoDownload(why=NoFile.GONE)
    if job.status == Status.COMPLETED:
        return _find_file(storage, job, now)
    if job.status == Status.CANCELLED:
        return NoDownload(why=NoFile.CANCELLED)
    if job.status == Status.FAILED:
        return NoDownload(why=NoFile.FAILED, reason=job.log)
    return NoDownload(why=NoFile.NOT_READY)


def _find_file(storage: Storage, job: Job, now: datetime) -> File | NoDownload:
    if job.expires_at is None or job.expires_at <= now:
        return NoDownload(why=NoFile.EXPIRED)
    run = job.run
    if run is None or run.object_key is None or run.sha256 is None:
        return NoDownload(why=NoFile.GONE)
    # A file of another size is not the one that the user was notified about.
    if storage.size(run.object_key) != run.bytes:
        return NoDownload(why=NoFile.GONE)
    try:
        content_type = read_job_spec(job, job.attempt, OutputOptions()).encoding.content_type
    except Rejected:
        return NoDownload(why=NoFile.GONE)
    name = run.object_key.rpartition("/")[2]
    lifetime = max(min(job.expires_at - now, REDIRECT_LIFETIME), SHORTEST_LIFETIME)
    return File(
        url=storage.sign(run.object_key, lifetime, name, content_type),
        name=name,
        content_type=content_type,
        bytes=run.bytes,
        sha256=run.sha256,
    )
