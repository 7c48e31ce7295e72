"""Stores finished files in S3, Azure or Google Cloud Storage, in a local folder, or in any filesystem of fsspec."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from config.labels import PartOutcome
from pipeline.storage.generic import FsspecStorage
from pipeline.storage.local import LocalStorage
from pipeline.storage.options import (
    AZURE_SCHEMES,
    GOOGLE_SCHEMES,
    S3_SCHEMES,
    AzureOptions,
    GoogleOptions,
    PartOptions,
    S3Options,
)
from pipeline.storage.types import Storage

__all__ = ["AzureOptions", "GoogleOptions", "PartOptions", "S3Options", "Storage", "open_storage"]


def open_storage(
    url: str,
    options: S3Options | AzureOptions | GoogleOptions,
    on_part: Callable[[PartOutcome], None] = lambda _outcome: None,
) -> Storage:
    """Return the store that an fsspec URL names, such as `s3://bucket/prefix` or `file:///var/exports`.

    `options` are those of the store; folders and other filesystems need none. `on_part` is called with "stored",
    "retried" or "failed" for each part of an upload. No connection is made yet: call `check` for that. Raises
    ValueError for a URL that can't be opened, and for options that can't be right.
    """
    parts = urlsplit(url)
    place = parts.netloc, parts.path.strip("/")
    match options:
        case S3Options() if parts.scheme in S3_SCHEMES:
            return _open_s3(*place, options, on_part)
        case AzureOptions() if parts.scheme in AZURE_SCHEMES:
            return _open_azure(*place, options, on_part)
        case GoogleOptions() if parts.scheme in GOOGLE_SCHEMES:
            return _open_google(*place, options, on_part)
    if parts.scheme == "file":
        return LocalStorage(Path(unquote(parts.path)))
    return FsspecStorage(url)


def _open_s3(bucket: str, root: str, options: S3Options, on_part: Callable[[PartOutcome], None]) -> Storage:
    from pipeline.storage.s3 import S3Storage

    return S3Storage(bucket, root, options, on_part)


def _open_azure(place: str, root: str, options: AzureOptions, on_part: Callable[[PartOutcome], None]) -> Storage:
    try:
        from pipeline.storage.azure import open_container
    except ImportError as error:
        raise _explain_missing("azure", error) from error
    return open_container(place, root, options, on_part)


def _open_google(bucket: str, root: str, options: GoogleOptions, on_part: Callable[[PartOutcome], None]) -> Storage:
    try:
        from pipeline.storage.google import GoogleStorage
    except ImportError as error:
        raise _explain_missing("google", error) from error
    return GoogleStorage(bucket, root, options, on_part)


def _explain_missing(extra: str, error: ImportError) -> ValueError:
    remedy = f"run pip install '.[{extra}]' in the repository"
    return ValueError(f"a package for the store is missing ({error.name}): {remedy}")
