"""Describes a finished file, for whoever has the file alone."""

import json
from datetime import UTC, datetime

from pipeline.spec import ExportSpec
from pipeline.types import ExportResult

VERSION = 1
CONTENT_TYPE = "application/json"


def manifest_key(key: str) -> str:
    """Return the key of the manifest of the object under `key`."""
    return f"{key}.manifest.json"


def manifest(spec: ExportSpec, result: ExportResult, compression: str, finished_at: datetime) -> bytes:
    """Return the manifest as JSON: what the file is and holds, and which request it answers.

    `bytes` and `sha256` are those of the file as stored, `rawBytes` its size before compression.
    """
    content = {
        "version": VERSION,
        "key": result.key,
        "rows": result.rows,
        "bytes": result.bytes,
        "rawBytes": result.raw_bytes,
        "sha256": result.sha256,
        "format": spec.format,
        "compression": compression,
        "columns": result.columns,
        "truncated": result.truncated,
        "tableName": spec.query.table_name,
        "projectId": spec.project_id,
        "batchExportId": spec.export_id,
        "attempt": spec.attempt,
        "query": spec.query.model_dump(mode="json", by_alias=True),
        "cutoff": _iso(result.cutoff),
        "finishedAt": _iso(finished_at),
    }
    return json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n"


def _iso(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
