"""Tells how much memory the machine lets this process have."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

CGROUPS = Path("/sys/fs/cgroup")
NO_LIMIT = 1 << 62
"""Control groups of version 1 say a number of about this size when there is no limit."""


def memory_limit(cgroups: Path = CGROUPS) -> int | None:
    """Read the limit of our control group in bytes, of either version; None where there is none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # another version, or "max"
            limit = int((cgroups / name).read_text())
            return limit if limit < NO_LIMIT else None
    return None


class MemoryLimit(Collector):
    """Shows the limit as a metric, which has no value where there is none."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give the metric as it is now."""
        metric = GaugeMetricFamily("waybill_memory_limit_bytes", "Memory that this process may use.")
        if (limit := memory_limit()) is not None:
            metric.add_metric([], limit)
        yield metric
