"""Imports of libraries without garbage collection, which takes a fifth of the CPU of a daemon's start."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collecting_nothing() -> Iterator[None]:
    """Collect no garbage while the block imports modules, and nothing of them later: they live as long as the process.

    Without `freeze`, the next collection would look at all of their objects.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
