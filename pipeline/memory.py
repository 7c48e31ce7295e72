"""Keeps a process that exports small: what a batch needed goes back to the system when the batch is done."""

import ctypes
import sys

import pyarrow as pa

# glibc's names for mallopt's parameters, and what they are set to.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 1 << 20
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 256 << 10
_M_ARENA_MAX, _ARENAS = -8, 2


def keep_small() -> None:
    """Set up the allocators; call it once, when the process starts, before the first export.

    Left alone, each keeps what it once had: Arrow's for its threads, and glibc's because its idea of a large block
    grows with use. That is a third of the memory of an exporting process, for a few per cent of its time.
    """
    _keep_pandas_out()
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not glibc
        return
    mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
    mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
    mallopt(_M_ARENA_MAX, _ARENAS)


def _keep_pandas_out() -> None:
    """Let pyarrow find out that there is no pandas.

    It imports pandas, if that is installed, at the first value of Python's that it is given, to see whether the value
    is one of pandas' own: 50 MiB for nothing. It asks once.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """An importer that says there is no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:  # noqa: ARG004 (an importer's signature)
        if name == "pandas":
            raise ImportError(name)
