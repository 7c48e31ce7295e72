"""Sets up the allocators of a process that exports, so that memory that a batch needed is returned to the system."""

# Set here and not in the environment, because a daemon that is started from a shell would not have it, and because it
# is not the same: glibc's variables cost a quarter more CPU for Parquet.
#
# Smaller thresholds return memory sooner, and cost page faults. The first of these keeps every format within 250 MiB.
# Measured on exports of 300,000 traces to a file, as CPU per row and peak memory, with thresholds for blocks of their
# own and for trimming of
#   2 MiB and 4 MiB:  CSV 8.5 µs, 229 MiB; JSONL 8.1 µs, 240 MiB; Parquet 8.1 µs, 239 MiB
#   3 MiB and 6 MiB:  CSV 7.8 µs, 240 MiB; JSONL 8.0 µs, 248 MiB; Parquet 8.2 µs, 251 MiB
#   6 MiB and 8 MiB:  CSV 8.0 µs, 241 MiB; JSONL 8.1 µs, 246 MiB; Parquet 7.5 µs, 251 MiB

import ctypes
import sys

import pyarrow as pa

# The parameters of glibc's mallopt, and their values.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 4 << 20
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 2 << 20
_M_ARENA_MAX, _ARENAS = -8, 2


def tune_allocators() -> None:
    """Set up the allocators; call it once in each process that exports, before the first export.

    By default, glibc raises its threshold for large blocks with use, and keeps more memory. The other allocators are
    chosen in `pipeline/__init__.py`, because their libraries read that when they are imported.
    """
    _keep_pandas_out()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not glibc
        return
    mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
    mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
    mallopt(_M_ARENA_MAX, _ARENAS)


def _keep_pandas_out() -> None:
    """Make pyarrow believe that pandas is not installed.

    Otherwise it imports pandas, which takes 50 MiB, at the first Python value that it converts, to check whether the
    value is a pandas object. It tries only once.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """An importer that reports pandas as not installed."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:  # noqa: ARG004 (an importer's signature)
        if name == "pandas":
            raise ImportError(name)
