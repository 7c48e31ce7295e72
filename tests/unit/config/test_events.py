import json
from datetime import UTC, datetime

import pytest

from config.events import ExportFinished, ExportRequested, Malformed, Status, read_finished, read_request
from tests.support.notices import completion


def test_unknown_fields_of_a_request_are_ignored() -> None:
    value = b'{"projectId": "p", "batchExportId": "e", "id": 7, "name": "batch-export-job"}'

    assert read_request(value) == ExportRequested(project_id="p", batch_export_id="e")


def test_a_completion_of_an_earlier_or_later_version_is_read() -> None:
    later = json.loads(completion(ignored=("newKey",)).encode()) | {"newField": 1}
    earlier = {name: each for name, each in later.items() if name != "ignored"}

    assert read_finished(json.dumps(later).encode()) == completion(ignored=("newKey",))
    assert read_finished(json.dumps(earlier).encode()) == completion()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "the message is empty"),
        (b"", "the message is empty"),
        (b"nonsense", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[]", "object"),
        (b'{"projectId": "p"}', "batchExportId: Field required"),
        (b'{"projectId": 1, "batchExportId": "e"}', "projectId: Input should be a valid string"),
        (b'{"projectId": "", "batchExportId": "e"}', "projectId: String should have at least 1 character"),
        (json.dumps({"projectId": "p", "batchExportId": "e" * 513}).encode(), "batchExportId: String should have at"),
    ],
)
def test_a_malformed_request_is_explained(value: bytes | None, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read_request(value)


def test_a_completion_is_written_in_camel_case_and_read_back() -> None:
    event = ExportFinished(
        event_id="x",
        project_id="p",
        batch_export_id="e",
        attempt=2,
        status=Status.FAILED,
        table_name=None,
        format="CSV",
        rows=0,
        bytes=0,
        sha256=None,
        truncated=False,
        started_at=None,
        finished_at=datetime(2026, 11, 21, 12, tzinfo=UTC),
        expires_at=None,
        error="no",
    )

    written = json.loads(event.encode())

    assert (written["batchExportId"], written["finishedAt"], written["tableName"]) == (
        "e",
        "2026-11-21T12:00:00Z",
        None,
    )
    assert read_finished(event.encode()) == event


def test_a_completion_has_a_final_status() -> None:
    with pytest.raises(Malformed, match="status"):
        read_finished(
            b'{"status": "QUEUED"}'.replace(b"{", b'{"eventId":"x","projectId":"p","batchExportId":"e","attempt":1,')
        )
