"""Sets up the allocators of a process that exports, so that memory that a batch needed is returned to the system."""

# Set here and not in the process environment, because a daemon that is started from a shell would not have it, and
# because it is not the same: variables cost a quarter more CPU for Parquet.
#
# Smaller thresholds return memory sooner, and cost page faults. Measured on exports of 300,000 traces, as CPU per row
# and peak memory, with thresholds for blocks of their own and for trimming of
#   256 KiB and 1 MiB:  CSV 14.3 µs, 290 MiB; JSONL 16.0 µs, 281 MiB; Parquet 13.4 µs, 303 MiB
#   2 MiB and 4 MiB:    CSV 12.7 µs, 292 MiB; JSONL 14.9 µs, 297 MiB; Parquet 12.1 µs, 311 MiB
#   16 MiB and 16 MiB:  CSV 11.7 µs, 321 MiB; JSONL 14.5 µs, 302 MiB; Parquet 12.5 µs, 320 MiB

import ctypes
import sys

import pyarrow as pa

# The parameters of glibc's mallopt, and their values.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 4 << 20
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 2 << 20
_M_ARENA_MAX, _ARENAS = -8, 2


def tune_allocators() -> None:
    """Set up the allocators; call it once in each process that exports, before the first export.

    By default, Arrow's allocator keeps memory for its threads, and glibc's raises its threshold for large blocks with
    use: a third of the memory of an exporting process, which costs a few per cent of its time to return.
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
