import asyncio
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import make_url

from config.metrics import Metrics
from runtime import self_metrics
from runtime.database import open_database
from runtime.self_metrics import build_metrics, follow_loop, follow_pool, read_memory_limit


def test_a_blocked_event_loop_shows_in_the_metric_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_metrics, "TICK_SECONDS", 0.01)
    metrics = Metrics(CollectorRegistry())

    async def run() -> list[float]:
        stop, seen = asyncio.Event(), []
        following = asyncio.create_task(follow_loop(metrics, stop))
        await asyncio.sleep(0.03)
        time.sleep(0.2)  # noqa: ASYNC251 (it blocks the loop on purpose)
        for _ in range(3):
            await asyncio.sleep(0.02)
            seen.append(metrics.registry.get_sample_value("waybill_event_loop_lag_seconds") or 0)
        stop.set()
        await asyncio.wait_for(following, 10)
        return seen

    assert min(asyncio.run(run())) > 0.15


def test_connections_of_the_pool_are_shown_by_state(tmp_path: Path) -> None:
    engine = open_database(make_url(f"sqlite:///{tmp_path}/jobs.db"))
    metrics = Metrics(CollectorRegistry())
    follow_pool(metrics, engine)

    def shown() -> tuple[float | None, ...]:
        value = metrics.registry.get_sample_value
        return tuple(value("waybill_database_connections", {"state": state}) for state in ("in_use", "idle"))

    with engine.connect(), engine.connect():
        assert shown() == (2, 0)
    assert shown() == (0, 2)
    engine.dispose()


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_limit_is_read_from_both_versions_of_control_groups(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, "536870912\n")

    assert read_memory_limit(tmp_path) == 512 << 20


@pytest.mark.parametrize(
    ("name", "text"), [("memory.max", "max\n"), ("memory/memory.limit_in_bytes", "9223372036854771712\n")]
)
def test_without_a_limit_there_is_none(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, name, text)

    assert read_memory_limit(tmp_path) is None


@pytest.mark.parametrize("limit", [None, 512 << 20])
def test_the_metric_has_a_value_only_with_a_limit(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    monkeypatch.setattr(self_metrics, "read_memory_limit", lambda: limit)

    metrics = build_metrics()

    assert metrics.registry.get_sample_value("waybill_memory_limit_bytes") == limit
