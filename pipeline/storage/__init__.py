"""Keeps finished files: S3 and what speaks it, a local folder, or any other place that fsspec knows."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from config.labels import PartOutcome
from pipeline.storage.generic import OtherStorage
from pipeline.storage.local import FolderStorage
from pipeline.storage.s3 import S3Options, S3Storage
from pipeline.storage.types import Storage

__all__ = ["S3Options", "Storage", "open_storage"]


def open_storage(
    url: str, options: S3Options, on_part: Callable[[PartOutcome], None] = lambda _outcome: None
) -> Storage:
    """Return the store that an fsspec URL names, such as `s3://bucket/prefix` or `file:///var/exports`.

    `options` are for S3 alone. `on_part` is told "stored", "retried" or "failed" for each part of an upload. Talks to
    nobody yet: `check` does. Raises ValueError for a URL that fsspec has no way to open.
    """
    parts = urlsplit(url)
    if parts.scheme in {"s3", "s3a"}:
        return S3Storage(parts.netloc, parts.path.strip("/"), options, on_part)
    if parts.scheme == "file":
        return FolderStorage(Path(unquote(parts.path)))
    return OtherStorage(url)
