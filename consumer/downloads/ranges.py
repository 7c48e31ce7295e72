"""Reads which part of a file a request asks for (RFC 9110, section 14)."""

import re

_ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)


class Unsatisfiable(ValueError):
    """The file has no byte that the range names."""


def read_range(header: str | None, size: int) -> range | None:
    """Give the bytes that a Range header asks for of a file of `size` bytes; None means the whole file.

    What is not one range of bytes is passed over, as the standard allows. Raises Unsatisfiable.
    """
    found = _ONE_RANGE.fullmatch((header or "").strip())
    if found is None or found[0].endswith("=-"):
        return None
    first, last = found.groups()
    if not first:
        asked = range(max(0, size - int(last)), size)
    elif last and int(last) < int(first):
        return None
    else:
        asked = range(int(first), min(int(last) + 1, size) if last else size)
    if not asked:
        raise Unsatisfiable(header)
    return asked
