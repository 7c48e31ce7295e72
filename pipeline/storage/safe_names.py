"""Makes keys safe as paths, and file names safe in headers; all code that does so uses this module."""

import re
from urllib.parse import quote


def join_key(root: str, key: str) -> str:
    """Return `key` under `root`, without empty parts; ValueError for a key that could lead to another folder."""
    parts = [part for part in key.split("/") if part]
    if not parts or any(part in {".", ".."} or "\0" in part or "\\" in part for part in parts):
        raise ValueError(f"{key!r} is not a key: it is empty, or has '.' or '..' parts, a backslash or a NUL")
    return "/".join([root, *parts] if root else parts)


def make_disposition(filename: str) -> str:
    """Return a Content-Disposition that makes browsers save a file under this name (RFC 6266)."""
    name = re.sub(r"[\x00-\x1f\x7f]", "", filename.rsplit("/", 1)[-1])
    plain = re.sub(r'[^ -~]|["\\%]', "_", name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'
