"""Fixtures of the observability tests: Waybill, scraped by Prometheus."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from config.settings import load
from embedded.stack import Stack as Parts
from tests.observability.system import HELM, PATIENCE, QUICK, System
from tests.services import prometheus as prometheus_service
from tests.services.kafka import Kafka
from tests.services.s3 import S3
from tests.services.stacks import Embedded
from tests.support.daemons import eventually


@pytest.fixture(scope="module")
def system(embedded: Parts, kafka: Kafka, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("observability")
    with ExitStack() as around:
        stack = around.enter_context(Embedded(embedded).stack(folder))
        bucket = around.enter_context(s3.bucket())
        server = around.enter_context(prometheus_service.start(folder / "prometheus", HELM / "rules"))
        environment = {**stack.environment(), **kafka.environment(), **bucket.environment(), **QUICK}
        del environment["WAYBILL_STORAGE_URL"]
        settings = load(environment)
        kafka.create_topics(settings.requests_topic, settings.completions_topic, settings.dead_letter_topic)
        system = System(folder, settings, environment, bucket, server)
        system.prepare()
        yield system


@pytest.fixture(scope="module")
def waybill(system: System) -> Iterator[System]:
    """Waybill in normal operation: a consumer, a notifier, and no firing alert."""
    with system.consumer(), system.notifier():
        eventually(lambda: system.prometheus.query("waybill_slots > 0"), seconds=PATIENCE, what="a consumer is scraped")
        eventually(lambda: not system.prometheus.firing(), seconds=PATIENCE, what="no alert to fire")
        yield system
