"""Stores files in a local folder: each is written beside its target, then renamed."""

import contextlib
import errno
import glob
import hashlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from config.errors import Cancelled, Unavailable
from pipeline.storage.safe_names import ADVICE, FILE_NAME_BYTES, check_length, join_key

logger = logging.getLogger(__name__)

_PARTIAL = ".partial"
_NAME_MAX = 200
_ATTEMPT = "user.waybill-attempt"
_FLUSH_BYTES = 64 << 20
"""Bytes that may wait in the page cache while as many are flushed to disk.

Without a limit, a large file would evict everything else from the cache, and be slower.
"""

_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "the store is full"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "the store can't be written to"),
}

_Version = tuple[int, int, int]


class LocalUpload:
    """A file that has a hidden name until it is complete; implements Upload."""

    def __init__(self, target: Path, attempt: int) -> None:
        self._target = target
        # The name contains the attempt, so that a stalled worker and its successor can't write to one file.
        self._partial = target.with_name(f".{_shorten(target.name)}.{attempt}{_PARTIAL}")
        self._attempt = attempt
        self._interrupted = False
        self._size = 0
        self._cached = 0
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="waybill-flush")
        self._flushing: Future[None] | None = None
        self._seen: _Version | None = None
        self._file: IO[bytes] | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Append to the hidden file."""
        self._check_interrupt()
        view = memoryview(data)
        with _translate_faults("write", self._partial):
            while view:  # a raw file may write only part of the data
                view = view[self._require_file().write(view) :]
            self._size += len(data)
            self._cached += len(data)
            if self._cached >= _FLUSH_BYTES:
                self._start_flush()

    def finish(self) -> int:
        """Flush to disk, then rename; Unavailable if another file was stored since entering."""
        self._check_interrupt()
        with _translate_faults("finish", self._target):
            self._await_flush()
            os.fsync(self._require_file().fileno())
            self._require_file().close()
            try:
                self._publish()
            except FileExistsError as error:
                raise Unavailable(f"another attempt has written {self._target} since this one began") from error
            self._file = None
            _flush_folder(self._target.parent)
        return self._size

    def abort(self) -> None:
        """Remove the hidden file."""
        self._flusher.shutdown()
        if self._file is None:
            return
        try:
            self._file.close()
            self._partial.unlink(missing_ok=True)
        except OSError:
            logger.warning("could not remove a partial file", extra={"path": str(self._partial)}, exc_info=True)
        self._file = None

    def interrupt(self) -> None:
        """Make the next call raise Cancelled; no call blocks for long."""
        self._interrupted = True

    def _check_interrupt(self) -> None:
        if self._interrupted:
            raise Cancelled("the upload was interrupted")

    def _start_flush(self) -> None:
        """Start to flush the bytes written since the last flush, once that flush has ended."""
        self._await_flush()
        self._flushing = self._flusher.submit(_flush_pages, self._require_file())
        self._cached = 0

    def _await_flush(self) -> None:
        if self._flushing is not None:
            self._flushing.result()

    def _publish(self) -> None:
        if self._seen is None and _link(self._partial, self._target):
            self._partial.unlink()
        elif _read_version(self._target) == self._seen:
            self._partial.replace(self._target)
        else:
            raise FileExistsError

    def _require_file(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("the upload has ended, or was not entered")
        return self._file

    def __enter__(self) -> Self:
        with _translate_faults("create", self._partial):
            self._seen = _read_version(self._target)
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("wb", buffering=0)
            _store_attempt(self._file, self._attempt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class LocalStorage:
    """Files in a folder, which is created when it is first needed; implements Storage."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def open(self, key: str, content_type: str, attempt: int, expected: int = 0) -> LocalUpload:  # noqa: ARG002 (files have neither media types nor parts)
        """Open a file that will be beside its target."""
        path = self._path(key)
        for part in key.split("/"):
            check_length(part, FILE_NAME_BYTES)
        return LocalUpload(path, attempt)

    def sign(self, key: str, lifetime: timedelta, filename: str, content_type: str) -> str:  # noqa: ARG002 (the folder's permissions apply)
        """Return the file's own URL, which does not expire."""
        return self._path(key).as_uri()

    def size(self, key: str) -> int | None:
        """Return the file's size."""
        path = self._path(key)
        with _translate_faults("read", path):
            return path.stat().st_size if path.is_file() else None

    def delete(self, key: str, attempt: int) -> None:
        """Remove the file, unless its extended attributes name a later attempt."""
        path = self._path(key)
        with _translate_faults("remove", path):
            if _load_attempt(path) <= attempt:
                path.unlink(missing_ok=True)

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        """Remove partial files that were last written before `older_than`."""
        partial = self._list_partial(prefix, older_than)
        with _translate_faults("clean", self._root):
            for path in partial:
                path.unlink(missing_ok=True)
        return len(partial)

    def list_uploads(self, prefix: str, older_than: datetime) -> set[str]:
        """Return the keys of the files whose partial files were last written before `older_than`."""
        partial = self._list_partial(prefix, older_than)
        # The hidden name is a dot, the file's own name, the attempt and the suffix.
        targets = [path.with_name(path.name.removeprefix(".").rsplit(".", 2)[0]) for path in partial]
        return {target.relative_to(self._root).as_posix() for target in targets}

    def _list_partial(self, prefix: str, older_than: datetime) -> list[Path]:
        folder, _, start = prefix.rpartition("/")
        with _translate_faults("look into", self._root):
            found = (self._root / folder).glob(f"**/.{glob.escape(start)}*{_PARTIAL}")
            return [path for path in found if path.stat().st_mtime < older_than.timestamp()]

    def check(self, prefix: str) -> None:
        """Write a file and remove it."""
        with LocalUpload(self._path(f"{prefix}.check"), 0) as upload:
            upload.write(b".")

    def find_weaknesses(self, key: str) -> list[str]:  # noqa: ARG002 (there are none to try)
        """Return nothing: a folder gives all guarantees."""
        return []

    def _path(self, key: str) -> Path:
        return self._root / join_key("", key)


@contextlib.contextmanager
def _translate_faults(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = _ADVICE.get(error.errno or 0)
        advice = None if reason is None else ADVICE.format(reason)
        raise Unavailable(f"could not {doing} {path}: {error.strerror or error}", advice=advice) from error


def _shorten(name: str) -> str:
    """Return a name with room for a suffix; the names of a file and of its manifest stay different."""
    raw = name.encode()
    if len(raw) <= _NAME_MAX:
        return name
    checksum = hashlib.sha256(raw).hexdigest()[:16]
    return f"{raw[: _NAME_MAX - len(checksum) - 1].decode(errors='ignore')}-{checksum}"


def _read_version(path: Path) -> _Version | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name, FileExistsError if it is taken; False if the file system has no hard links."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _store_attempt(file: IO[bytes], attempt: int) -> None:
    with contextlib.suppress(OSError):  # some file systems have no extended attributes
        os.setxattr(file.fileno(), _ATTEMPT, str(attempt).encode())


def _load_attempt(path: Path) -> int:
    try:
        return int(os.getxattr(path, _ATTEMPT))
    except (OSError, ValueError):
        return 0


def _flush_pages(file: IO[bytes]) -> None:
    """Flush a file's pages to disk, and drop them from the page cache."""
    os.fdatasync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
