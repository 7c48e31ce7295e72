"""Keeps files in a folder of this machine: written beside the target, then renamed over it."""

import contextlib
import glob
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from config.errors import Cancelled, Unavailable
from pipeline.storage.safe_names import joined

logger = logging.getLogger(__name__)

_PARTIAL = ".partial"
_NAME_MAX = 200
_ATTEMPT = "user.waybill-attempt"
_TO_DISK = 64 << 20
"""Bytes that may wait in the page cache while as many go to the disk.

Left there, a large file would take the place of everything else, and be slower.
"""

_Version = tuple[int, int, int]


class FolderUpload:
    """A file that has a hidden name until it is whole; implements Upload."""

    def __init__(self, target: Path, attempt: int) -> None:
        self._target = target
        # The names of other attempts differ, so a zombie and its successor can't write to one file.
        self._partial = target.with_name(f".{target.name[:_NAME_MAX]}.{attempt}{_PARTIAL}")
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
        self._go_on()
        view = memoryview(data)
        with _translated("write", self._partial):
            while view:  # a raw file may take less than it is given
                view = view[self._opened().write(view) :]
            self._size += len(data)
            self._cached += len(data)
            if self._cached >= _TO_DISK:
                self._flush()

    def finish(self) -> int:
        """Flush to disk, then give the file its name, unless another file than on entering has it by now."""
        self._go_on()
        with _translated("finish", self._target):
            self._flushed()
            os.fsync(self._opened().fileno())
            self._opened().close()
            try:
                self._publish()
            except FileExistsError as error:
                raise Unavailable(f"somebody else has written {self._target} since this attempt began") from error
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
        """Make the next call raise Cancelled; none of them blocks for long."""
        self._interrupted = True

    def _go_on(self) -> None:
        if self._interrupted:
            raise Cancelled("the upload was interrupted")

    def _flush(self) -> None:
        """Let what was written go to the disk, once what was written before is there."""
        self._flushed()
        self._flushing = self._flusher.submit(_flush_pages, self._opened())
        self._cached = 0

    def _flushed(self) -> None:
        if self._flushing is not None:
            self._flushing.result()

    def _publish(self) -> None:
        if self._seen is None and _linked(self._partial, self._target):
            self._partial.unlink()
        elif _version(self._target) == self._seen:
            self._partial.replace(self._target)
        else:
            raise FileExistsError

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("the upload has ended, or was not entered")
        return self._file

    def __enter__(self) -> Self:
        with _translated("create", self._partial):
            self._seen = _version(self._target)
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("wb", buffering=0)
            _sign(self._file, self._attempt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class FolderStorage:
    """Files in a folder, which is made when it is first needed; implements Storage."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def open(self, key: str, content_type: str, attempt: int) -> FolderUpload:  # noqa: ARG002 (files have no media type)
        """Start a file that will lie beside its target."""
        return FolderUpload(self._path(key), attempt)

    def sign(self, key: str, lifetime: timedelta, filename: str, content_type: str) -> str:  # noqa: ARG002 (whoever can read the folder can read the file)
        """Return the file's own URL: it has no end."""
        return self._path(key).as_uri()

    def size(self, key: str) -> int | None:
        """Return the file's size."""
        path = self._path(key)
        with _translated("read", path):
            return path.stat().st_size if path.is_file() else None

    def delete(self, key: str, attempt: int) -> None:
        """Remove the file, if its extended attributes name no later attempt."""
        path = self._path(key)
        with _translated("remove", path):
            if _written_by(path) <= attempt:
                path.unlink(missing_ok=True)

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        """Remove partial files that were last written to before `older_than`."""
        partial = self._partials(prefix, older_than)
        with _translated("clean", self._root):
            for path in partial:
                path.unlink(missing_ok=True)
        return len(partial)

    def list_uploads(self, prefix: str, older_than: datetime) -> set[str]:
        """Name the files whose partial files were last written to before `older_than`."""
        partial = self._partials(prefix, older_than)
        # The hidden name is a dot, the file's own name, the attempt and the suffix.
        targets = [path.with_name(path.name.removeprefix(".").rsplit(".", 2)[0]) for path in partial]
        return {target.relative_to(self._root).as_posix() for target in targets}

    def _partials(self, prefix: str, older_than: datetime) -> list[Path]:
        folder, _, start = prefix.rpartition("/")
        with _translated("look into", self._root):
            found = (self._root / folder).glob(f"**/.{glob.escape(start)}*{_PARTIAL}")
            return [path for path in found if path.stat().st_mtime < older_than.timestamp()]

    def check(self) -> None:
        """Write a file and remove it."""
        with FolderUpload(self._root / ".check", 0) as upload:
            upload.write(b".")

    def _path(self, key: str) -> Path:
        return self._root / joined("", key)


@contextlib.contextmanager
def _translated(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"could not {doing} {path}: {error.strerror or error}") from error


def _version(path: Path) -> _Version | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _linked(source: Path, target: Path) -> bool:
    """Give a file a second name, which must not be taken; False where the file system has no such thing."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _sign(file: IO[bytes], attempt: int) -> None:
    with contextlib.suppress(OSError):  # not every file system has extended attributes
        os.setxattr(file.fileno(), _ATTEMPT, str(attempt).encode())


def _written_by(path: Path) -> int:
    try:
        return int(os.getxattr(path, _ATTEMPT))
    except (OSError, ValueError):
        return 0


def _flush_pages(file: IO[bytes]) -> None:
    """Write to disk what the page cache has of a file, and let the cache forget it."""
    os.fdatasync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
