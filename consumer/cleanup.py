"""Tidies up, now and then: uploads that nobody ends, files of expired exports, events that were published long ago."""

import logging
import re
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote, unquote

from config.errors import Unavailable
from consumer import outbox
from consumer.attempt import Bench
from consumer.models import Run
from consumer.queries import list_expired, list_latest_runs
from pipeline.manifest import manifest_key
from runtime.threads import in_thread

logger = logging.getLogger(__name__)

BATCH = 100
PUBLISHED_FOR = timedelta(days=7)
"""How long events that Kafka has are kept, for people to look at."""

_OURS = re.compile(r"(?:^|/)\d+-lf-[^/]*?-export-([^/]+?)\.(?:csv|jsonl?|parquet)(?:\.[a-z.]+)?$")


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """A round of tidying up; safe in all workers at once. `delete_expired` says whether files end with their links."""

    bench: Bench
    prefix: str
    delete_expired: bool

    async def tidy(self) -> None:
        """Go once around; what fails is tried in the next round."""
        for work in (self.abort_abandoned, self.delete_files, self.prune):
            try:
                await in_thread(work)
            except Unavailable as error:
                logger.warning("tidying up is put off: %s", error)

    def abort_abandoned(self) -> None:
        """Abort uploads of exports of ours that no live worker has, whatever became of the export.

        One that began within the last lease may be of a claim that was made a moment ago.
        """
        now = self.bench.now()
        before = now - self.bench.rules.lease
        storage, engine = self.bench.storage, self.bench.jobs.engine
        for key in sorted(storage.list_uploads(self.prefix, before)):
            ids = exports_of(key)
            runs = [run for run in list_latest_runs(engine, ids) if ids[run.export_id] == run.project_id]
            if runs and not any(run.live(now) for run in runs) and (aborted := storage.abort_uploads(key, before)):
                logger.warning("aborted uploads that nobody would have ended", extra={"key": key, "uploads": aborted})

    def delete_files(self) -> None:
        """Delete files whose links have expired, with their manifests, once."""
        if not self.delete_expired:
            return
        for run in list_expired(self.bench.jobs.engine, now=self.bench.now(), limit=BATCH):
            self._delete(run)

    def prune(self) -> None:
        """Delete events that were published long ago, a batch at a time."""
        before = self.bench.now() - PUBLISHED_FOR
        while outbox.prune(self.bench.jobs.engine, before=before, limit=outbox.PRUNED_AT_ONCE):
            pass

    def _delete(self, run: Run) -> None:
        if run.object_key is None:
            return
        self.bench.storage.delete(run.object_key, run.attempt)
        self.bench.storage.delete(manifest_key(run.object_key), run.attempt)
        self.bench.jobs.forget_object(run)
        logger.info("deleted the file of an expired export", extra={"export_id": run.export_id, "key": run.object_key})


def exports_of(key: str) -> dict[str, str]:
    """Tell which exports a key may be of: project ids by export id; ids have dashes, so there is more than one way."""
    found = _OURS.search(key)
    if found is None:
        return {}
    parts = found[1].split("-")
    ways = [("-".join(parts[:at]), "-".join(parts[at:])) for at in range(1, len(parts))]
    return {unquote(export): unquote(project) for project, export in ways if quote(unquote(export), safe="") == export}
