import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from config.metrics import Metrics
from pipeline.metering import Flow


def spent(metrics: Metrics, stage: str) -> float:
    value = metrics.registry.get_sample_value("waybill_stage_seconds_total", {"stage": stage})
    assert value is not None
    return value


def test_waiting_for_a_stage_below_is_that_stages_time() -> None:
    metrics = Metrics(CollectorRegistry())
    flow = Flow(metrics)

    def below() -> Iterator[int]:
        for number in range(4):
            time.sleep(0.02)
            yield number

    def above(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            time.sleep(0.01)
            yield item

    assert list(flow.stage("encode", above(flow.stage("read", below())))) == [0, 1, 2, 3]
    assert spent(metrics, "read") >= 0.08
    assert 0.04 <= spent(metrics, "encode") < spent(metrics, "read")


def test_a_stage_that_fails_is_charged_too() -> None:
    metrics = Metrics(CollectorRegistry())

    def fails() -> Iterator[int]:
        time.sleep(0.02)
        raise KeyError
        yield 1

    with pytest.raises(KeyError):
        list(Flow(metrics).stage("read", fails()))
    assert spent(metrics, "read") >= 0.02
