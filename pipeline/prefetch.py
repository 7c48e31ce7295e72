"""Lets one stage work while the next one does."""

import threading
from collections.abc import Generator, Iterator
from contextvars import copy_context
from functools import partial
from queue import Full, Queue
from typing import TypeVar

T = TypeVar("T")
_LOOK_UP = 0.1


class _End:
    """The last thing from a source: what it raised, if it did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(source: Iterator[T], depth: int = 1) -> Generator[T]:
    """Yield what `source` yields, made in a thread of its own, at most `depth` items before they are asked for.

    What the source raises is raised here, after the items before it. Closing this closes the source, once the item
    that it is busy with is made.
    """
    items: Queue[T | _End] = Queue(maxsize=depth)
    stop = threading.Event()
    # Its log lines carry what those of this thread do.
    work = partial(copy_context().run, _fill, source, items, stop)
    thread = threading.Thread(target=work, name="waybill-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := items.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()


def _fill(source: Iterator[T], items: "Queue[T | _End]", stop: threading.Event) -> None:
    end = _End()
    try:
        for item in source:
            if not _put(items, item, stop):
                break
    except BaseException as error:  # noqa: BLE001 (raised where the items are read)
        end = _End(error)
    finally:
        if close := getattr(source, "close", None):
            close()
    _put(items, end, stop)


def _put(items: "Queue[T | _End]", item: "T | _End", stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            items.put(item, timeout=_LOOK_UP)
        except Full:
            continue
        return True
    return False
