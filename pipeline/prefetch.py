"""Runs the stages before it in a thread of their own, so that they work while the next stage does."""

import threading
from collections.abc import Generator, Iterator
from contextvars import copy_context
from functools import partial
from queue import Full, Queue
from typing import TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.1


class _End:
    """The last item of a source, with its error if it failed."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetch(source: Iterator[T], depth: int = 1) -> Generator[T]:
    """Yield the items of `source`, which runs in its own thread, at most `depth` items ahead.

    An error of the source is raised here, after the items before it. Closing this generator closes the source, once
    the source has finished the item that it works on.
    """
    items: Queue[T | _End] = Queue(maxsize=depth)
    stop = threading.Event()
    # The copy of the context gives the thread's log lines the fields of this thread.
    work = partial(copy_context().run, _fill, source, items, stop)
    thread = threading.Thread(target=work, name="waybill-prefetch", daemon=True)
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
            items.put(item, timeout=_POLL_SECONDS)
        except Full:
            continue
        return True
    return False
