"""Stores files in any filesystem of fsspec: under a hidden name first, then under their own."""

import contextlib
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from fsspec.core import url_to_fs
from fsspec.exceptions import FSTimeoutError

from config.errors import Cancelled, Unavailable
from pipeline.storage.safe_names import OBJECT_NAME_BYTES, check_length, join_key

logger = logging.getLogger(__name__)

PARTIAL = ".partial"
ATTEMPT_CHARACTERS = 12
"""The dots around the hidden name, and the number of the attempt."""

_WEAKNESS = (
    "fsspec has no conditional writes and stores no attempt with a file: "
    "a worker that was stopped for longer than its lease could replace or remove a newer file"
)


class FsspecUpload:
    """An object that has a hidden name until it is complete; implements Upload.

    Its handle is committed or discarded, never just closed, because closing would publish an incomplete object. It is
    renamed last, because not every filesystem hides an uncommitted file.
    """

    def __init__(self, fs: Any, target: str, attempt: int) -> None:
        self._fs = fs
        self._target = target
        folder, _, name = target.rpartition("/")
        self._partial = f"{folder}/.{name}.{attempt}{PARTIAL}"
        self._interrupted = False
        self._ended = False
        self._size = 0
        self._seen: str | None = None
        self._handle: Any = None

    def write(self, data: bytes | memoryview) -> None:
        """Write to the handle."""
        self._check_interrupt()
        with _translate_faults("write"):
            self._handle.write(data)
        self._size += len(data)

    def finish(self) -> int:
        """Commit under the hidden name, then rename; Unavailable if another object was stored since entering."""
        self._check_interrupt()
        with _translate_faults("finish"):
            self._handle.close()
            self._handle.commit()
            if self._version() != self._seen:
                raise FileExistsError(f"another attempt has written {self._target} since this one began")
            self._fs.mv(self._partial, self._target)
        self._ended = True
        return self._size

    def abort(self) -> None:
        """Discard the object, committed or not."""
        if self._ended or self._handle is None:
            return
        self._ended = True
        try:
            self._handle.discard()
            if self._fs.exists(self._partial):
                self._fs.rm_file(self._partial)
        except Exception:
            logger.warning("could not discard an upload", extra={"path": self._partial}, exc_info=True)

    def interrupt(self) -> None:
        """Make the next call raise Cancelled."""
        self._interrupted = True

    def _check_interrupt(self) -> None:
        if self._interrupted:
            raise Cancelled("the upload was interrupted")

    def _version(self) -> str | None:
        return str(self._fs.ukey(self._target)) if self._fs.exists(self._target) else None

    def __enter__(self) -> Self:
        with _translate_faults("create"):
            self._fs.makedirs(self._target.rpartition("/")[0], exist_ok=True)
            self._seen = self._version()
            self._handle = self._fs.open(self._partial, "wb", autocommit=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class FsspecStorage:
    """Files under an fsspec URL; implements Storage. Without signed URLs in the filesystem, links are plain URLs."""

    def __init__(self, url: str) -> None:
        try:
            self._fs, self._root = url_to_fs(url)
        except ImportError as error:
            raise ValueError(
                f"WAYBILL_STORAGE_URL: the package for {url.partition(':')[0]}:// is missing: {error}"
            ) from error
        except ValueError as error:
            raise ValueError(
                f"WAYBILL_STORAGE_URL: fsspec knows no filesystem for {url.partition(':')[0]}://, or can't read the URL"
            ) from error
        except Exception as error:
            # Some filesystems connect here, or lack an argument: they raise anything, and may repeat the URL.
            raise ValueError(
                f"WAYBILL_STORAGE_URL: fsspec can't open {url.partition(':')[0]}:// ({type(error).__name__})"
            ) from error

    def open(self, key: str, content_type: str, attempt: int, expected: int = 0) -> FsspecUpload:  # noqa: ARG002 (fsspec has no parameters for them)
        """Open an object under a hidden name."""
        check_length(key, OBJECT_NAME_BYTES - len(PARTIAL) - ATTEMPT_CHARACTERS)
        return FsspecUpload(self._fs, self._path(key), attempt)

    def sign(self, key: str, lifetime: timedelta, filename: str, content_type: str) -> str:  # noqa: ARG002 (fsspec signs only a path)
        """Sign with the filesystem's own method."""
        path = self._path(key)
        try:
            with _translate_faults("sign"):
                return str(self._fs.sign(path, expiration=int(lifetime.total_seconds())))
        except NotImplementedError:
            return str(self._fs.unstrip_protocol(path))

    def size(self, key: str) -> int | None:
        """Return the size by the filesystem."""
        path = self._path(key)
        with _translate_faults("read"):
            return int(self._fs.size(path)) if self._fs.exists(path) else None

    def delete(self, key: str, attempt: int) -> None:  # noqa: ARG002 (fsspec stores no attributes with an object)
        """Remove the object."""
        path = self._path(key)
        with _translate_faults("remove"):
            if self._fs.exists(path):
                self._fs.rm_file(path)

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        """Remove hidden objects that were last written before `older_than`, if the filesystem records the time."""
        partial = self._list_partial(prefix, older_than)
        with _translate_faults("clean"):
            for path in partial:
                self._fs.rm_file(path)
        return len(partial)

    def list_uploads(self, prefix: str, older_than: datetime) -> set[str]:
        """Return the keys of the objects whose hidden objects were last written before `older_than`."""
        start = len(self._root.rstrip("/")) + 1
        targets = [path[start:].rpartition("/") for path in self._list_partial(prefix, older_than)]
        # The hidden name is a dot, the object's own name, the attempt and the suffix.
        return {f"{folder}{slash}{name[1:].rsplit('.', 2)[0]}" for folder, slash, name in targets}

    def _list_partial(self, prefix: str, older_than: datetime) -> list[str]:
        folder, _, start = prefix.rpartition("/")
        found: list[str] = []
        with contextlib.suppress(NotImplementedError), _translate_faults("look into"):
            for path in self._fs.find(f"{self._root}/{folder}".rstrip("/")):
                name = path.rpartition("/")[2]
                if name.startswith(f".{start}") and name.endswith(PARTIAL) and self._fs.modified(path) < older_than:
                    found.append(path)
        return found

    def check(self, prefix: str) -> None:
        """Open an object, write to it and discard it."""
        with self.open(f"{prefix}.check", "text/plain", 0) as upload:
            upload.write(b".")

    def find_weaknesses(self, key: str) -> list[str]:  # noqa: ARG002 (fsspec has no conditional writes in any filesystem)
        """Say what fsspec does not have."""
        return [_WEAKNESS]

    def _path(self, key: str) -> str:
        return join_key(self._root.rstrip("/"), key)


@contextlib.contextmanager
def _translate_faults(doing: str) -> Iterator[None]:
    try:
        yield
    except (OSError, FSTimeoutError) as error:
        raise Unavailable(f"the store could not {doing}: {getattr(error, 'strerror', None) or error}") from error
