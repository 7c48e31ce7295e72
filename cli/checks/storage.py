"""Finds what can't be done in the store although Waybill needs it, and which guarantees the store can't give."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from config.errors import Unavailable
from pipeline.storage import Storage
from pipeline.storage.types import Refused

CONTENT_TYPE = "text/plain"
_SOME = b"waybill doctor\n"


@dataclass(frozen=True)
class Report:
    """One sentence for each step that failed, with its remedy, and for each guarantee that the store can't give."""

    problems: tuple[str, ...]
    weaknesses: tuple[str, ...] = ()


def examine(storage: Storage, prefix: str, name: str) -> Report:
    """Store, find and delete the object `name` under `prefix`, and begin, list and abort uploads.

    Nothing is left behind.
    """
    key, long_ago = f"{prefix}{name}", datetime(2000, 1, 1, tzinfo=UTC)
    try:
        storage.check(prefix)
    except Refused:
        pass  # the other steps may be allowed
    except Unavailable as error:
        return Report((str(error),))
    weaknesses: list[str] = []
    steps: tuple[Callable[[], object], ...] = (
        lambda: storage.check(prefix),
        lambda: _store(storage, key),
        lambda: weaknesses.extend(storage.find_weaknesses(key)),
        lambda: storage.delete(key, 1),
        lambda: storage.list_uploads(prefix, long_ago),
    )
    problems = dict.fromkeys(problem for step in steps for problem in _try(step))
    return Report(tuple(problems), tuple(weaknesses))


def _store(storage: Storage, key: str) -> None:
    with storage.open(key, CONTENT_TYPE, 1) as upload:
        upload.write(_SOME)
        upload.finish()
    if storage.size(key) is None:
        raise Unavailable(
            f"the store does not show {key}, which was just stored: "
            "the policy of the credentials must allow s3:GetObject on the files"
        )


def _try(step: Callable[[], object]) -> Iterator[str]:
    try:
        step()
    except Unavailable as error:
        yield str(error)
