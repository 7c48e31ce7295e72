"""Finds what a download link leads to: the file of an export, or why there is none."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from config.errors import Rejected
from config.events import Status
from config.labels import NoFile
from consumer.attempt import read_job_spec
from consumer.jobs import Jobs
from consumer.models import Job
from pipeline.storage import Storage
from pipeline.types import OutputOptions

REDIRECT_LIFETIME = timedelta(minutes=10)
SHORTEST_LIFETIME = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why there is no file, and for a failed export the words that its row has for the user."""

    why: NoFile
    words: str | None = None


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that can be had: `url` is where the store gives it, for a short time."""

    url: str
    name: str
    content_type: str
    bytes: int
    sha256: str


def locate(jobs: Jobs, storage: Storage, ids: tuple[str, str], now: datetime) -> File | Refusal:
    """Look an export up by project and id, and its file in the store; raises Unavailable."""
    job = jobs.find(*ids)
    if job is None:
        return Refusal(why=NoFile.GONE)
    if job.status == Status.COMPLETED:
        return _find_file(storage, job, now)
    if job.status == Status.CANCELLED:
        return Refusal(why=NoFile.CANCELLED)
    if job.status == Status.FAILED:
        return Refusal(why=NoFile.FAILED, words=job.log)
    return Refusal(why=NoFile.NOT_READY)


def _find_file(storage: Storage, job: Job, now: datetime) -> File | Refusal:
    if job.expires_at is None or job.expires_at <= now:
        return Refusal(why=NoFile.EXPIRED)
    run = job.run
    if run is None or run.object_key is None or run.sha256 is None:
        return Refusal(why=NoFile.GONE)
    # A file of another size is not the one that the user was told of.
    if storage.size(run.object_key) != run.bytes:
        return Refusal(why=NoFile.GONE)
    try:
        content_type = read_job_spec(job, job.attempt, OutputOptions()).encoding.content_type
    except Rejected:
        return Refusal(why=NoFile.GONE)
    name = run.object_key.rpartition("/")[2]
    lifetime = max(min(job.expires_at - now, REDIRECT_LIFETIME), SHORTEST_LIFETIME)
    return File(
        url=storage.sign(run.object_key, lifetime, name, content_type),
        name=name,
        content_type=content_type,
        bytes=run.bytes,
        sha256=run.sha256,
    )
