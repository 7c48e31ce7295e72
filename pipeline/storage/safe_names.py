"""Makes keys safe as paths, and file names safe in headers; all code that does so uses this module."""

import re
from urllib.parse import quote

from config.errors import Rejected

ADVICE = "The files of exports can't be stored: {}. Ask the operator of Waybill, then start the export again."
"""The text for users when a store fails in a way that only its operator can correct."""

OBJECT_NAME_BYTES = 1024
"""The longest name of an object in S3, and in the object stores of Azure and Google."""

FILE_NAME_BYTES = 255
"""The longest part of a path in the usual file systems."""


def join_key(root: str, key: str) -> str:
    """Return `key` under `root`, without empty parts; ValueError for a key that could lead to another folder."""
    parts = [part for part in key.split("/") if part]
    if not parts or any(part in {".", ".."} or "\0" in part or "\\" in part for part in parts):
        raise ValueError(f"{key!r} is not a key: it is empty, or has '.' or '..' parts, a backslash or a NUL")
    return "/".join([root, *parts] if root else parts)


def check_length(name: str, limit: int) -> None:
    """Raise Rejected if a name has more than `limit` bytes."""
    if (size := len(name.encode())) > limit:
        raise Rejected(
            f"The file can't be stored: its name has {size:,} bytes, and the store allows {limit:,}. "
            "The ids of the project and the export, or the configured prefix, are too long."
        )


def make_disposition(filename: str) -> str:
    """Return a Content-Disposition that makes browsers save a file under this name (RFC 6266)."""
    name = re.sub(r"[\x00-\x1f\x7f]", "", filename.rsplit("/", 1)[-1])
    plain = re.sub(r'[^ -~]|["\\%]', "_", name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'
