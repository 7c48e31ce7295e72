"""A folder on this machine."""

from pathlib import Path

import pytest

from pipeline.storage.folder import FolderStorage


def test_a_file_is_whole_however_often_its_pages_leave_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.folder._TO_DISK", 1000)
    pieces = [bytes([number]) * (number * 37) for number in range(100)]
    with FolderStorage(tmp_path).open("k", "text/plain", 1) as upload:
        for piece in pieces:
            upload.write(piece)
        assert upload.finish() == sum(map(len, pieces))
    assert (tmp_path / "k").read_bytes() == b"".join(pieces)
