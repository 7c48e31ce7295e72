"""Stores finished files in S3 or a compatible store, in a local folder, or in any filesystem of fsspec."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from config.labels import PartOutcome
from pipeline.storage.generic import FsspecStorage
from pipeline.storage.local import LocalStorage
from pipeline.storage.s3 import S3Options, S3Storage
from pipeline.storage.types import Storage

__all__ = ["S3Options", "Storage", "open_storage"]


def open_storage(
    url: str, options: S3Options, on_part: Callable[[PartOutcome], None] = lambda _outcome: None
) -> Storage:
    """Return the store that an fsspec URL names, such as `s3://bucket/prefix` or `file:///var/exports`.

    `options` are for S3 only. `on_part` is called with "stored", "retried" or "failed" for each part of an upload. No
    connection is made yet: call `check` for that. Raises ValueError for a URL that fsspec can't open.
    """
    parts = urlsplit(url)
    if parts.scheme in {"s3", "s3a"}:
        return S3Storage(parts.netloc, parts.path.strip("/"), options, on_part)
    if parts.scheme == "file":
        return LocalStorage(Path(unquote(parts.path)))
    return FsspecStorage(url)
