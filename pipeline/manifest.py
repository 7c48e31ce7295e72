"""Describes a finished file, for a reader who has only the file."""

import json
from datetime import UTC, datetime

from pipeline.spec import ExportSpec
from pipeline.types import ExportResult

VERSION = 1
CONTENT_TYPE = "application/json; charset=utf-8"


def make_manifest(spec: ExportSpec, result: ExportResult, finished_at: datetime) -> bytes:
    """Return the manifest as JSON: what the file is, what it contains, and the request that it answers.

    `bytes` and `sha256` are those of the file as stored, `rawBytes` is its size before compression.
    """
    content = {
        "version": VERSION,
        "key": result.key,
        "rows": result.rows,
        "bytes": result.bytes,
        "rawBytes": result.raw_bytes,
        "sha256": result.sha256,
        "format": spec.encoding.format.name,
        "compression": spec.encoding.compression,
        "columns": result.columns,
        "nullColumns": result.null_columns,
        "truncated": result.truncated,
        "tableName": spec.query.table_name,
        "projectId": spec.project_id,
        "batchExportId": spec.export_id,
        "attempt": spec.attempt,
        "query": spec.query.model_dump(mode="json", by_alias=True),
        "ignored": result.ignored,
        "cutoff": _format_instant(result.cutoff),
        "finishedAt": _format_instant(finished_at),
    }
    return json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n"


def _format_instant(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
