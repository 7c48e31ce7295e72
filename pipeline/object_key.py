"""Makes the keys of an export's objects, and finds the export that a key is for."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from pipeline.types import CODECS, FORMATS

_MANIFEST = ".manifest.json"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def make_key(prefix: str, created_at: datetime, table: str, *, project_id: str, export_id: str, extension: str) -> str:
    """Return the key of an export's file.

    Names are percent-encoded, so that they can't lead to another folder, and no two exports share a key.
    """
    owner = f"{_encode_export(export_id)}-lf-{_encode_table(table)}-export-{_encode(project_id)}"
    return f"{prefix}{_count_milliseconds(created_at)}-{owner}.{extension}"


def make_former_key(
    prefix: str, created_at: datetime, table: str, *, project_id: str, export_id: str, extension: str
) -> str:
    """Return the key that earlier versions of Waybill gave to an export's file."""
    owner = f"lf-{_encode(table)}-export-{_encode(project_id)}-{_encode(export_id)}"
    return f"{prefix}{_count_milliseconds(created_at)}-{owner}.{extension}"


def manifest_key(key: str) -> str:
    """Return the key of the manifest of the file under `key`."""
    return f"{key}{_MANIFEST}"


def find_exports(key: str) -> dict[str, str]:
    """Return the exports that a file or manifest may belong to: project ids by export id; none for other objects.

    Ids may contain dashes, so a key of an earlier version can be split in more than one way.
    """
    if (found := _KEY.search(key)) is not None:
        export, project = unquote(found["export"]), unquote(found["project"])
        return {export: project} if _encode_export(export) == found["export"] else {}
    if (found := _FORMER_KEY.search(key)) is None:
        return {}
    parts = found["ids"].split("-")
    splits = [("-".join(parts[:at]), "-".join(parts[at:])) for at in range(1, len(parts))]
    return {unquote(export): unquote(project) for project, export in splits if _encode(unquote(export)) == export}


def _count_milliseconds(created_at: datetime) -> int:
    return (created_at - _EPOCH) // timedelta(milliseconds=1)


def _encode(part: str) -> str:
    return quote(part, safe="")


def _encode_export(export_id: str) -> str:
    """Encode an id so that the first `-lf-` of a key is the one behind it."""
    return _LF.sub("%6Cf", _encode(export_id))


def _encode_table(table: str) -> str:
    """Encode a name so that the first `-export-` behind it is not part of it."""
    return _encode(table).replace("-", "%2D")


def _any_of(texts: Iterable[str]) -> str:
    return "|".join(re.escape(text) for text in texts)


_LF = re.compile(r"(?<![^-])lf(?![^-])")
_ENDING = (
    rf"\.(?:{_any_of(each.extension for each in FORMATS.values())})"
    rf"(?:{_any_of(each.extension for each in CODECS.values())})"
    rf"(?:{re.escape(_MANIFEST)})?$"
)
_KEY = re.compile(rf"(?:^|/)\d+-(?!lf-)(?P<export>[^/]+?)-lf-[^/]*?-export-(?P<project>[^/]+?){_ENDING}")
_FORMER_KEY = re.compile(rf"(?:^|/)\d+-lf-[^/]*?-export-(?P<ids>[^/]+?){_ENDING}")
