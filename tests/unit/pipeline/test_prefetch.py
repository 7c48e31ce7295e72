import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from pipeline.prefetch import prefetch


def test_items_come_in_order() -> None:
    assert list(prefetch(iter(range(1000)))) == list(range(1000))


def test_the_sources_error_comes_after_its_items() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    items = prefetch(source())
    assert next(items) == 1
    with pytest.raises(KeyError, match="x"):
        next(items)


def test_the_source_works_while_its_item_is_worked_on() -> None:
    begun = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        begun.set()
        yield 2

    with closing(prefetch(source())) as items:
        assert next(items) == 1
        assert begun.wait(10)


def test_no_more_is_made_than_was_asked_for() -> None:
    made = 0

    def source() -> Iterator[int]:
        nonlocal made
        while True:
            made += 1
            yield made

    with closing(prefetch(source(), depth=2)) as items:
        assert [next(items), next(items)] == [1, 2]
    # one taken more, two waiting, one in the source's hands
    assert made <= 6


def test_closing_closes_the_source_and_ends_its_thread() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    items = prefetch(source())
    next(items)
    items.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "waybill-prefetch"]
