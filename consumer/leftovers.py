"""Removes what attempts left in storage that did not end in a file."""

from datetime import datetime

from pipeline.manifest import manifest_key
from pipeline.spec import ExportSpec
from pipeline.storage import Storage


def clear_leftovers(storage: Storage, spec: ExportSpec, before: datetime) -> None:
    """Remove the uploads that began earlier, the object and its manifest; what a later attempt made stays.

    For exports that end without a file; `before` is a time when no later attempt had been claimed.
    """
    storage.abort_uploads(spec.key, before)
    storage.delete(spec.key, spec.attempt)
    storage.delete(manifest_key(spec.key), spec.attempt)
