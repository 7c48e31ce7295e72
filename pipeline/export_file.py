"""Stores an export's file together with its manifest: both become visible, or neither does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from config.errors import Cancelled, Unavailable
from config.labels import UploadOutcome
from config.metrics import Metrics
from pipeline.buffer import Chunk
from pipeline.manifest import CONTENT_TYPE
from pipeline.object_key import manifest_key
from pipeline.progress import Progress
from pipeline.spec import ExportSpec
from pipeline.storage.types import Storage, Upload


class ExportFile:
    """The two uploads of one export; the file is visible once `commit` returns."""

    def __init__(self, spec: ExportSpec, storage: Storage, file: Upload, manifest: Upload) -> None:
        self._spec = spec
        self._storage = storage
        self._file = file
        self._manifest = manifest

    def write(self, data: Chunk) -> None:
        """Append to the file; raises Unavailable, or Cancelled once the export is stopped."""
        self._file.write(data)

    def commit(self, make_manifest: Callable[[], bytes], fence: Callable[[], None]) -> None:
        """Make the file visible, then its manifest, which is made in between; raises as `write` does.

        `fence` raises Cancelled if the attempt has lost its lease, also before anything is visible. If the manifest
        fails, the file is removed while the lease is kept; otherwise the next attempt replaces or removes it.
        """
        fence()
        try:
            self._file.finish()
            self._manifest.write(make_manifest())
            self._manifest.finish()
        except (Unavailable, Cancelled):
            with suppress(Unavailable, Cancelled):
                # The next attempt stores the same bytes, which have the same ETag in S3: no condition of a delete
                # protects its file.
                fence()
                self._storage.delete(self._spec.key, self._spec.attempt)
            raise


@contextmanager
def open_file(spec: ExportSpec, storage: Storage, progress: Progress, metrics: Metrics) -> Iterator[ExportFile]:
    """Open both uploads; leaving the block without `commit` aborts them. Counts how the file's upload ends.

    What is under both keys now is noted, so that `commit` fails when another attempt stores its file in the meantime.
    """
    file = storage.open(spec.key, spec.encoding.content_type, spec.attempt, spec.expected_bytes)
    manifest = storage.open(manifest_key(spec.key), CONTENT_TYPE, spec.attempt)
    progress.on_stop(file.interrupt)
    progress.on_stop(manifest.interrupt)
    outcome: UploadOutcome = "aborted"
    try:
        with file, manifest:
            yield ExportFile(spec, storage, file, manifest)
            outcome = "completed"
    finally:
        metrics.uploads.labels(outcome).inc()
