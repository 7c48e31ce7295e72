"""A folder on this machine."""

import errno
import os
from pathlib import Path

import pytest

from config.errors import Unavailable
from pipeline.storage.local import LocalStorage


def test_a_file_is_whole_however_often_its_pages_leave_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.local._FLUSH_BYTES", 1000)
    pieces = [bytes([number]) * (number * 37) for number in range(100)]
    with LocalStorage(tmp_path).open("k", "text/plain", 1) as upload:
        for piece in pieces:
            upload.write(piece)
        assert upload.finish() == sum(map(len, pieces))
    assert (tmp_path / "k").read_bytes() == b"".join(pieces)


def test_a_file_whose_pages_did_not_reach_the_disk_does_not_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("pipeline.storage.local._FLUSH_BYTES", 1000)
    monkeypatch.setattr("pipeline.storage.local.os.fdatasync", fail)
    with LocalStorage(tmp_path).open("k", "text/plain", 1) as upload:
        upload.write(b"x" * 1000)
        with pytest.raises(Unavailable, match=os.strerror(errno.EIO)):
            upload.finish()
    assert list(tmp_path.iterdir()) == []
