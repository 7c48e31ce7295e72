"""Removes what attempts left in storage that did not end in a file."""

from datetime import datetime, timedelta

from pipeline.manifest import manifest_key
from pipeline.spec import ExportSpec
from pipeline.storage import Storage

CLOCKS_APART = timedelta(days=1)
"""More than the store's clock may be ahead of ours: at the time of asking, none of the uploads is wanted."""


def clear_uploads(storage: Storage, spec: ExportSpec, now: datetime) -> int:
    """Abort uploads of this export that are still open, so that no earlier attempt can finish one; says how many."""
    return storage.abort_uploads(spec.key, now + CLOCKS_APART)


def clear_leftovers(storage: Storage, spec: ExportSpec, now: datetime) -> None:
    """Remove open uploads, the object and its manifest; for exports that end without a file."""
    clear_uploads(storage, spec, now)
    storage.delete(spec.key)
    storage.delete(manifest_key(spec.key))
