"""Measures the process of a daemon: event loop delay, connection pool, consumer lag and memory limit."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import faust
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from config.metrics import Metrics

TICK_SECONDS = 1.0
TICKS_KEPT = 30
CGROUPS = Path("/sys/fs/cgroup")
NO_LIMIT = 1 << 62
"""Control groups of version 1 report a number of about this size when there is no limit."""


def build_metrics() -> Metrics:
    """Return the metrics of a daemon, with those of its process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(MemoryLimit())
    return Metrics(registry)


async def follow_loop(metrics: Metrics, stop: asyncio.Event) -> None:
    """Measure the delay of the event loop until `stop` is set; it shows when something blocks the loop."""
    loop, lags = asyncio.get_running_loop(), deque([0.0], maxlen=TICKS_KEPT)
    while not stop.is_set():
        due = loop.time() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        lags.append(max(loop.time() - due, 0))
        metrics.event_loop_lag.set(max(lags))


def follow_pool(metrics: Metrics, engine: Engine) -> None:
    """Report the connections of the engine's pool each time the metrics are read."""
    pool = engine.pool
    if isinstance(pool, QueuePool):
        metrics.database_connections.labels("in_use").set_function(pool.checkedout)
        metrics.database_connections.labels("idle").set_function(pool.checkedin)


async def measure_lag(app: faust.App) -> Counter[str]:
    """Return the messages after the committed offsets of the app's partitions, counted by topic."""
    consumer: Any = app.consumer
    held = consumer.assignment()
    committed = consumer._committed_offset  # noqa: SLF001 (Faust's monitor has no offsets before the first commit)
    done = {partition: offset for partition in held if (offset := committed.get(partition)) is not None}
    if new := held - done.keys():
        done.update(await consumer.earliest_offsets(*new))
    ends = await consumer.highwaters(*held) if held else {}
    lag: Counter[str] = Counter()
    for partition, end in ends.items():
        lag[partition.topic] += max(end - done[partition], 0)
    return lag


def read_memory_limit(cgroups: Path = CGROUPS) -> int | None:
    """Return the memory limit of this control group (version 1 or 2) in bytes, or None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # another version, or "max"
            limit = int((cgroups / name).read_text())
            return limit if limit < NO_LIMIT else None
    return None


class MemoryLimit(Collector):
    """Reports the memory limit as a metric, which has no value without a limit."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the current value."""
        metric = GaugeMetricFamily("waybill_memory_limit_bytes", "Memory limit of this process, in bytes.")
        if (limit := read_memory_limit()) is not None:
            metric.add_metric([], limit)
        yield metric
