"""Deletes what is no longer needed: orphaned uploads and files, files of expired exports, old published events."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from config.errors import Unavailable
from consumer import outbox
from consumer.job_store import Jobs
from consumer.models import Run
from consumer.queries import list_expired, list_latest_runs
from pipeline.object_key import find_exports, manifest_key
from pipeline.spec import ExportSpec
from pipeline.storage import Storage
from runtime.threads import in_thread

logger = logging.getLogger(__name__)

BATCH = 100
PRUNE_BATCH = 1_000
KEEP_PUBLISHED = timedelta(days=7)
"""How long published events are kept, so that operators can look at them."""


@dataclass(frozen=True, kw_only=True)
class Cleanup:
    """The periodic cleanup; safe in all workers at the same time.

    `lease` is how long a claim's lease lasts, `prefix` that of the object keys, and `history` how long ended runs are
    kept. With `delete_expired`, files are deleted when their links expire.
    """

    jobs: Jobs
    storage: Storage
    now: Callable[[], datetime]
    lease: timedelta
    prefix: str
    delete_expired: bool
    link_lifetime: timedelta
    history: timedelta

    async def run(self) -> None:
        """Run every part once; a part that fails is retried in the next run."""
        for part in (self.abort_orphans, self.delete_files, self.prune):
            try:
                await in_thread(part)
            except Unavailable as error:
                logger.warning("the cleanup is postponed: %s", error)

    def abort_orphans(self) -> None:
        """Abort uploads of our exports that no live worker has, whatever the state of the export.

        An upload that began within the last lease may belong to a claim that was just made, so it stays.
        """
        now = self.now()
        before = now - self.lease
        for key in sorted(self.storage.list_uploads(self.prefix, before)):
            ids = find_exports(key)
            runs = [run for run in list_latest_runs(self.jobs.engine, ids) if ids[run.export_id] == run.project_id]
            if not runs or any(run.live(now) for run in runs):
                continue
            if aborted := self.storage.abort_uploads(key, before):
                logger.warning("aborted orphaned uploads", extra={"key": key, "uploads": aborted})

    def delete_files(self) -> None:
        """Delete files whose links have expired, with their manifests."""
        if not self.delete_expired:
            return
        for run in list_expired(self.jobs.engine, now=self.now(), lifetime=self.link_lifetime, limit=BATCH):
            try:
                self._delete(run)
            except Unavailable as error:
                # It may be only this file, such as one that the store does not allow to delete.
                logger.warning("an expired file is deleted later: %s", error, extra={"key": run.object_key})

    def prune(self) -> None:
        """Delete events that were published long ago, and runs that ended long ago, in batches."""
        engine, now = self.jobs.engine, self.now()
        while outbox.prune(engine, before=now - KEEP_PUBLISHED, limit=PRUNE_BATCH):
            pass
        while self.jobs.prune(now - self.history, with_file=not self.delete_expired, limit=PRUNE_BATCH):
            pass

    def _delete(self, run: Run) -> None:
        if run.object_key is None:
            return
        _delete_object(self.storage, run.object_key, run.attempt)
        self.jobs.forget_object(run)
        logger.info("deleted the file of an expired export", extra={"export_id": run.export_id, "key": run.object_key})


def abort_earlier_uploads(storage: Storage, spec: ExportSpec, before: datetime) -> None:
    """Abort the uploads of an export's file and manifest that began before `before`."""
    for key in (spec.key, spec.former_key):
        storage.abort_uploads(key, before)


def delete_orphans(storage: Storage, spec: ExportSpec, before: datetime) -> None:
    """Delete the uploads that began before `before`, the object and its manifest; objects of later attempts stay.

    For exports that ended without a file; at `before`, no later attempt had been claimed.
    """
    abort_earlier_uploads(storage, spec, before)
    for key in (spec.key, spec.former_key):
        _delete_object(storage, key, spec.attempt)


def delete_former_object(storage: Storage, spec: ExportSpec) -> None:
    """Delete the object and its manifest that an attempt of an earlier version left under the former key."""
    _delete_object(storage, spec.former_key, spec.attempt)


def _delete_object(storage: Storage, key: str, attempt: int) -> None:
    storage.delete(key, attempt)
    storage.delete(manifest_key(key), attempt)
