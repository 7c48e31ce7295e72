from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry

from config.metrics import Metrics
from pipeline import metering
from pipeline.metering import Flow


@dataclass
class Clock:
    """Stands for the module `time`; tests set what it tells."""

    now: float = 0

    def perf_counter(self) -> float:
        return self.now


def spent(metrics: Metrics, stage: str) -> float:
    value = metrics.registry.get_sample_value("waybill_stage_seconds_total", {"stage": stage})
    assert value is not None
    return value


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(metering, "time", clock)
    return clock


def test_waiting_for_a_stage_below_is_that_stages_time(clock: Clock) -> None:
    metrics = Metrics(CollectorRegistry())
    flow = Flow(metrics)

    def below() -> Iterator[int]:
        for number in range(4):
            clock.now += 20
            yield number

    def above(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            clock.now += 10
            yield item

    assert list(flow.stage("encode", above(flow.stage("read", below())))) == [0, 1, 2, 3]
    assert spent(metrics, "read") == 80
    assert spent(metrics, "encode") == 40


def test_a_stage_that_fails_is_charged_too(clock: Clock) -> None:
    metrics = Metrics(CollectorRegistry())

    def fails() -> Iterator[int]:
        clock.now += 20
        raise KeyError
        yield 1

    with pytest.raises(KeyError):
        list(Flow(metrics).stage("read", fails()))
    assert spent(metrics, "read") == 20
