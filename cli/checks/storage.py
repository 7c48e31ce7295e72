"""Finds what can't be done in the store, although Waybill needs it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from config.errors import Unavailable
from pipeline.storage import Storage
from pipeline.storage.s3_calls import Refused

CONTENT_TYPE = "text/plain"
_SOME = b"waybill doctor\n"


def find_problems(storage: Storage, prefix: str, name: str) -> list[str]:
    """Store, find and delete the object `name` under `prefix`, and begin, list and abort uploads.

    Returns one sentence for each step that fails, with its remedy; nothing is left behind.
    """
    key, long_ago = f"{prefix}{name}", datetime(2000, 1, 1, tzinfo=UTC)
    try:
        storage.check(prefix)
    except Refused:
        pass  # the other steps may be allowed
    except Unavailable as error:
        return [str(error)]
    steps: tuple[Callable[[], object], ...] = (
        lambda: storage.check(prefix),
        lambda: _store(storage, key),
        lambda: storage.size(key),
        lambda: storage.delete(key, 1),
        lambda: storage.list_uploads(prefix, long_ago),
    )
    return list(dict.fromkeys(problem for step in steps for problem in _try(step)))


def _store(storage: Storage, key: str) -> None:
    with storage.open(key, CONTENT_TYPE, 1) as upload:
        upload.write(_SOME)
        upload.finish()


def _try(step: Callable[[], object]) -> Iterator[str]:
    try:
        step()
    except Unavailable as error:
        yield str(error)
