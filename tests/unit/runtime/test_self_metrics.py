import asyncio
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import make_url

from config.metrics import Metrics
from runtime import self_metrics
from runtime.database import open_database
from runtime.self_metrics import follow_loop, follow_pool


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
