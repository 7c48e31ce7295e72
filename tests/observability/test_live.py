"""A real Prometheus scrapes Waybill: every panel has data, every alert fires on its fault and resolves.

The rules run `prometheus.SCALE` times faster than in production; their own timing is tested by promtool.
"""

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runtime.connections import MOST
from tests.observability.system import HELM, NO_LIMIT, PATIENCE, TRACES, System, kill, resident
from tests.services import prometheus as prometheus_service
from tests.support.daemons import eventually

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(why := prometheus_service.available().why_not), reason=f"prometheus: {why}"),
    pytest.mark.skipif(os.getuid() != 0, reason="creating a control group needs root"),
]
NESTED = json.loads("[" * 200 + "]" * 200)
slow = pytest.mark.skipif(not os.environ.get("WAYBILL_OBSERVE"), reason="`make observe` runs it: it takes minutes")


def fires(system: System, alert: str) -> None:
    eventually(lambda: alert in system.prometheus.firing(), seconds=PATIENCE, what=f"{alert} to fire")


def resolves(system: System, alert: str) -> None:
    eventually(lambda: alert not in system.prometheus.firing(), seconds=PATIENCE, what=f"{alert} to resolve")


def panels() -> Iterator[tuple[str, str]]:
    for path in sorted((HELM / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                query = re.sub(r"\$(namespace|job)", ".*", target["expr"].replace("$__rate_interval", "15s"))
                yield f"{path.stem}: {panel['title']}", query


def test_every_panel_has_data_under_load(waybill: System) -> None:
    with waybill.load():
        waybill.publish(b"not a request")  # the panels of failures need one
        empty = dict.fromkeys(panels())

        def look() -> bool:
            for each in [each for each in empty if waybill.prometheus.query(each[1])]:
                del empty[each]
            return not empty

        try:
            eventually(look, seconds=PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"panels without data: {list(empty)}") from error


def test_an_invalid_request_fires_an_alert_that_resolves_when_no_more_come(waybill: System) -> None:
    waybill.publish(b"not a request")

    fires(waybill, "WaybillDeadLetters")
    resolves(waybill, "WaybillDeadLetters")


def test_an_unreadable_record_fires_an_alert_that_resolves_when_no_more_come(waybill: System) -> None:
    waybill.publish_unreadable()

    fires(waybill, "WaybillUnreadableRecords")
    resolves(waybill, "WaybillUnreadableRecords")


def test_a_row_that_cannot_be_read_fires_an_alert_that_resolves_when_no_more_come(waybill: System) -> None:
    waybill.queue({"tableName": "traces", "filter": NESTED})

    fires(waybill, "WaybillUnreadableRows")
    resolves(waybill, "WaybillUnreadableRows")


def test_an_ignored_key_fires_an_alert_that_resolves_when_no_more_come(waybill: System) -> None:
    waybill.queue({**TRACES, "colour": "red"})

    fires(waybill, "WaybillKeysIgnored")
    resolves(waybill, "WaybillKeysIgnored")


def test_too_many_connections_fire_an_alert_that_resolves_when_no_more_come(waybill: System) -> None:
    (consumer,) = waybill.consumers.values()
    address = urlsplit(consumer.url)
    with contextlib.ExitStack() as connections:
        for _ in range(MOST["internal"] + 20):
            connections.enter_context(socket.create_connection((address.hostname or "", address.port or 0)))
        fires(waybill, "WaybillConnectionsClosed")
    resolves(waybill, "WaybillConnectionsClosed")


def test_a_pod_near_its_memory_limit_fires_an_alert_until_the_limit_is_raised(waybill: System) -> None:
    (consumer,) = waybill.consumers.values()
    waybill.limit(int(resident(consumer) * 1.02))
    fires(waybill, "WaybillMemoryNearLimit")

    waybill.limit(NO_LIMIT)
    resolves(waybill, "WaybillMemoryNearLimit")


@slow
def test_a_refusing_store_fires_alerts_until_it_accepts_files_again(waybill: System) -> None:
    with waybill.load():
        with waybill.without_bucket():
            fires(waybill, "WaybillExportsFailing")
            fires(waybill, "WaybillUploadsAborting")
            fires(waybill, "WaybillNoSuccess")
        for alert in ("WaybillExportsFailing", "WaybillUploadsAborting", "WaybillNoSuccess"):
            resolves(waybill, alert)


@slow
def test_a_dead_smtp_server_fires_an_alert_until_it_is_back(waybill: System) -> None:
    with waybill.frozen("mailsink"):
        waybill.request()
        fires(waybill, "WaybillNoticesFailing")
    resolves(waybill, "WaybillNoticesFailing")


@slow
def test_a_database_without_claims_fires_lag_without_progress(waybill: System) -> None:
    jobs = [waybill.queue() for _ in range(10)]  # more than the consumer claims before the lock
    with waybill.locked_database():
        waiting = cycle([job for job in jobs if waybill.status(job) == "QUEUED"])

        def request_one_more() -> bool:
            waybill.publish_request(next(waiting))
            time.sleep(0.5)
            return "WaybillLagWithoutProgress" in waybill.prometheus.firing()

        eventually(request_one_more, seconds=PATIENCE, what="WaybillLagWithoutProgress to fire")
    resolves(waybill, "WaybillLagWithoutProgress")


@slow
def test_killed_pods_and_a_full_queue_fire_alerts_until_other_pods_run_the_exports(waybill: System) -> None:
    (first,) = waybill.consumers.values()
    eventually(lambda: not waybill.unfinished(), seconds=PATIENCE, what="the exports of other tests to end")
    with waybill.consumer(WAYBILL_SLOTS="1"):
        with waybill.frozen("clickhouse"):
            jobs = [waybill.request() for _ in range(3)]
            eventually(lambda: {waybill.status(job) for job in jobs} == {"PROCESSING"}, seconds=PATIENCE)
            kill(first)
            waiting = waybill.request()
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
