"""Makes the keys of an export's objects, and finds the export that a key is for."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from pipeline.types import CODECS, FORMATS

_MANIFEST = ".manifest.json"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def make_key(prefix: str, created_at: datetime, table: str, *, project_id: str, export_id: str, extension: str) -> str:
    """Return the key of an export's file; names are percent-encoded, so that they can't lead to another folder."""
    milliseconds = (created_at - _EPOCH) // timedelta(milliseconds=1)
    return f"{prefix}{milliseconds}-lf-{_encode(table)}-export-{_encode(project_id)}-{_encode(export_id)}.{extension}"


def manifest_key(key: str) -> str:
    """Return the key of the manifest of the file under `key`."""
    return f"{key}{_MANIFEST}"


def find_exports(key: str) -> dict[str, str]:
    """Return the exports that a file or manifest may belong to: project ids by export id; none for other objects.

    Ids may contain dashes, so a key can be split in more than one way.
    """
    found = _KEY.search(key)
    if found is None:
        return {}
    parts = found["ids"].split("-")
    splits = [("-".join(parts[:at]), "-".join(parts[at:])) for at in range(1, len(parts))]
    return {unquote(export): unquote(project) for project, export in splits if _encode(unquote(export)) == export}


def _encode(part: str) -> str:
    return quote(part, safe="")


def _any_of(texts: Iterable[str]) -> str:
    return "|".join(re.escape(text) for text in texts)


_KEY = re.compile(
    r"(?:^|/)\d+-lf-[^/]*?-export-(?P<ids>[^/]+?)"
    rf"\.(?:{_any_of(each.extension for each in FORMATS.values())})"
    rf"(?:{_any_of(each.extension for each in CODECS.values())})"
    rf"(?:{re.escape(_MANIFEST)})?$"
)
