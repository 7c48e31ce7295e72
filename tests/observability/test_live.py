"""A real Prometheus scrapes a real Waybill: every panel has data, every alert fires from its fault and resolves.

The rules run `prometheus.SCALE` times faster than in production; their own timing is tested by promtool.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import pytest

from config.settings import load
from embedded.stack import Stack as Parts
from tests.observability.system import NO_LIMIT, QUICK, Scene, kill, resident
from tests.services import prometheus as prometheus_service
from tests.services.kafka import Kafka
from tests.services.s3 import S3
from tests.services.stacks import Embedded
from tests.support import daemons
from tests.support.daemons import eventually

HELM = Path(__file__).parents[2] / "helm"
PATIENCE = 3 * daemons.PATIENCE

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(why := prometheus_service.available().why_not), reason=f"prometheus: {why}"),
    pytest.mark.skipif(os.getuid() != 0, reason="a control group of the test's own needs root"),
]
slow = pytest.mark.skipif(not os.environ.get("WAYBILL_OBSERVE"), reason="`make observe` runs it: it takes minutes")


@pytest.fixture(scope="module")
def scene(embedded: Parts, kafka: Kafka, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("observability")
    with ExitStack() as around:
        stack = around.enter_context(Embedded(embedded).stack(folder))
        bucket = around.enter_context(s3.bucket())
        server = around.enter_context(prometheus_service.start(folder / "prometheus", HELM / "rules"))
        environment = {**stack.environment(), **kafka.environment(), **bucket.environment(), **QUICK}
        del environment["WAYBILL_STORAGE_URL"]
        settings = load(environment)
        kafka.create_topics(settings.requests_topic, settings.completions_topic, settings.dead_letter_topic)
        made = Scene(folder, settings, environment, bucket, server)
        made.prepare()
        yield made


@pytest.fixture(scope="module")
def waybill(scene: Scene) -> Iterator[Scene]:
    """Waybill as it runs every day: a consumer and a notifier, of which no alert has anything to say."""
    with scene.consumer(), scene.notifier():
        eventually(lambda: scene.prometheus.query("waybill_slots > 0"), seconds=PATIENCE, what="a consumer is scraped")
        eventually(lambda: not scene.prometheus.firing(), seconds=PATIENCE, what="no alert to fire")
        yield scene


def fires(scene: Scene, alert: str) -> None:
    eventually(lambda: alert in scene.prometheus.firing(), seconds=PATIENCE, what=f"{alert} to fire")


def resolves(scene: Scene, alert: str) -> None:
    eventually(lambda: alert not in scene.prometheus.firing(), seconds=PATIENCE, what=f"{alert} to resolve")


def panels() -> Iterator[tuple[str, str]]:
    for path in sorted((HELM / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                query = re.sub(r"\$(namespace|job)", ".*", target["expr"].replace("$__rate_interval", "15s"))
                yield f"{path.stem}: {panel['title']}", query


def test_every_panel_has_data_under_load(waybill: Scene) -> None:
    with waybill.load():
        waybill.publish(b"not a request")  # panels of failures and alerts need one
        empty = dict.fromkeys(panels())

        def look() -> bool:
            for each in [each for each in empty if waybill.prometheus.query(each[1])]:
                del empty[each]
            return not empty

        try:
            eventually(look, seconds=PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"panels without data: {list(empty)}") from error


def test_a_message_that_is_no_request_alerts_and_is_over_when_no_more_come(waybill: Scene) -> None:
    waybill.publish(b"not a request")

    fires(waybill, "WaybillDeadLetters")
    resolves(waybill, "WaybillDeadLetters")


def test_a_pod_near_its_memory_limit_alerts_until_it_is_given_more(waybill: Scene) -> None:
    (consumer,) = waybill.consumers.values()
    waybill.limit(int(resident(consumer) * 1.02))
    fires(waybill, "WaybillMemoryNearLimit")

    waybill.limit(NO_LIMIT)
    resolves(waybill, "WaybillMemoryNearLimit")


@slow
def test_a_store_that_refuses_alerts_until_it_takes_files_again(waybill: Scene) -> None:
    with waybill.load():
        with waybill.without_bucket():
            fires(waybill, "WaybillExportsFailing")
            fires(waybill, "WaybillUploadsAborting")
            fires(waybill, "WaybillNoSuccess")
        for alert in ("WaybillExportsFailing", "WaybillUploadsAborting", "WaybillNoSuccess"):
            resolves(waybill, alert)


@slow
def test_a_mail_server_that_is_dead_alerts_until_it_is_back(waybill: Scene) -> None:
    with waybill.frozen("mailsink"):
        waybill.ask()
        fires(waybill, "WaybillNoticesFailing")
    resolves(waybill, "WaybillNoticesFailing")


@slow
def test_a_database_that_takes_no_claims_alerts_as_lag_without_progress(waybill: Scene) -> None:
    jobs = [waybill.queue() for _ in range(10)]  # more than are claimed before the lock
    with waybill.locked_database():
        waiting = cycle([job for job in jobs if waybill.status(job) == "QUEUED"])

        def ring_for_one_more() -> bool:
            waybill.ring(next(waiting))
            time.sleep(0.5)
            return "WaybillLagWithoutProgress" in waybill.prometheus.firing()

        eventually(ring_for_one_more, seconds=PATIENCE, what="WaybillLagWithoutProgress to fire")
    resolves(waybill, "WaybillLagWithoutProgress")


@slow
def test_killed_pods_and_a_full_queue_alert_until_the_exports_are_taken_over(waybill: Scene) -> None:
    (first,) = waybill.consumers.values()
    eventually(lambda: not waybill.unfinished(), seconds=PATIENCE, what="what other tests asked for to end")
    with waybill.consumer(WAYBILL_SLOTS="1"):
        with waybill.frozen("clickhouse"):
            jobs = [waybill.ask() for _ in range(3)]
            eventually(lambda: {waybill.status(job) for job in jobs} == {"PROCESSING"}, seconds=PATIENCE)
            kill(first)
            waiting = waybill.ask()
            fires(waybill, "WaybillExportStuck")
            fires(waybill, "WaybillQueueTooOld")
        fires(waybill, "WaybillSilentKills")
        eventually(lambda: waybill.status(waiting) == "COMPLETED", seconds=PATIENCE)
        for alert in ("WaybillExportStuck", "WaybillQueueTooOld", "WaybillSilentKills"):
            resolves(waybill, alert)
    fires(waybill, "WaybillConsumersGone")
    with waybill.consumer():
        resolves(waybill, "WaybillConsumersGone")


def test_every_alert_has_a_test_here() -> None:
    alerts = {path.stem for path in (HELM / "rules").glob("*.yaml")}

    assert alerts == set(re.findall(r'"(Waybill\w+)"', Path(__file__).read_text()))
