"""A folder on this machine."""

import errno
import os
from pathlib import Path

import pytest

from config.errors import Rejected, Unavailable
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


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "folder/" + "x" * 256])
def test_a_name_that_no_file_can_have_is_rejected_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(Rejected, match="256 bytes, and the store allows 255"):
        LocalStorage(tmp_path).open(name, "text/plain", 1)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_that_a_file_can_have_is_stored(tmp_path: Path) -> None:
    with LocalStorage(tmp_path).open("é" * 127, "text/plain", 12345) as upload:
        upload.write(b"x")
        upload.finish()
    assert [each.name for each in tmp_path.iterdir()] == ["é" * 127]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "the store is full"),
        (errno.EDQUOT, "the store is full"),
        (errno.EROFS, "the store can't be written to"),
        (errno.EACCES, "the store can't be written to"),
    ],
)
def test_a_folder_that_is_full_or_read_only_is_named_to_the_user_and_to_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("pipeline.storage.local.os.fsync", fail)
    with LocalStorage(tmp_path).open("k", "text/plain", 1) as upload:
        upload.write(b"x")
        with pytest.raises(Unavailable, match=os.strerror(code)) as raised:
            upload.finish()
    assert reason in str(raised.value.advice)
    assert str(tmp_path) in str(raised.value)
    assert str(tmp_path) not in str(raised.value.advice)
