"""HTTP clients misbehave while exports run, and the consumer may open 1,024 descriptors; links need few servers."""

import contextlib
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from config.links import Links
from tests.faults.case import Case, run_case
from tests.faults.source import LARGE, PROJECT, SMALL
from tests.faults.system import System
from tests.support.clients import HALF_SENT, PIPELINED, SLOW_BODY, WHOLE, Behaviour, crowd
from tests.support.daemons import Daemon, command, eventually
from tests.support.garbage import make_garbage, send_bytes
from tests.support.responses import refuse

pytestmark = pytest.mark.faults

CLIENTS = 1135
DESCRIPTORS = 1024
STREAMS = 400
KEY = "0123456789abcdef" * 2
LINKS = {"WAYBILL_PUBLIC_URL": "http://links.test", "WAYBILL_SECRET_KEY": KEY}


def limited_consumer(system: System) -> Daemon:
    """Start a consumer that serves links and may open 1,024 descriptors."""
    launcher = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}", *command("consumer")]
    return system.consumer(launcher=launcher, **LINKS)


DAEMONS = (limited_consumer, System.notifier)


def _answers(consumer: Daemon, export_id: str) -> bool:
    """Whether the probe and a download get a response now."""
    link = Links("", [KEY.encode()]).write(PROJECT, export_id)
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(f"{consumer.url}/livez", timeout=5) as live:
            alive = live.status == 200
        with urllib.request.urlopen(consumer.links + urlsplit(link).path, timeout=30) as file:
            return alive and len(file.read()) > 0
    return False


def _beside(behaviour: Behaviour) -> Callable[[System], None]:
    """Export while clients misbehave at both ports; every export must succeed at its first attempt."""

    def run(system: System) -> None:
        (consumer,) = system.alive("consumer")
        with ExitStack() as misbehaving:
            for url in (consumer.url, consumer.links):
                misbehaving.enter_context(crowd(url, CLIENTS, behaviour))
            system.pause(1, 3)
            exports = [system.request(query) for query in (SMALL, LARGE, SMALL, LARGE)]
            for each in exports:
                system.wait_for(each, "COMPLETED", "FAILED", seconds=120)
            assert [system.outcomes(each) for each in exports] == [["completed"]] * len(exports)
            eventually(lambda: _answers(consumer, exports[0]), what="a download beside the others")

    return run


def _garbage(system: System) -> None:
    (consumer,) = system.alive("consumer")
    export_id = system.request()
    for _ in range(STREAMS):
        for url in (consumer.url, consumer.links):
            send_bytes(url, make_garbage(system.random))
    system.wait_for(export_id, "COMPLETED")
    assert system.outcomes(export_id) == ["completed"]
    eventually(lambda: _answers(consumer, export_id), seconds=60, what="a download afterwards")


def _links_alone(system: System) -> None:
    """Stop Kafka and ClickHouse; links work, although the consumer isn't ready."""
    (consumer,) = system.alive("consumer")
    export_id = system.request()
    system.wait_for(export_id, "COMPLETED")
    system.servers.kafka.stop()
    system.servers.clickhouse_proxy.add(lambda _: True, refuse(503, "Down"))
    eventually(lambda: not consumer.ready(), what="the consumer reports that it is not ready")
    assert _answers(consumer, export_id)
    restarted = system.start("consumer", LINKS, wait=False)
    assert not restarted.ready()
    assert _answers(restarted, export_id)


CASES = (
    Case("half-sent requests", _beside(Behaviour(HALF_SENT))),
    Case("requests that are sent a byte at a time", _beside(Behaviour(HALF_SENT, then=b"x"))),
    Case("idle connections", _beside(Behaviour(WHOLE))),
    Case("bodies that are sent a byte at a time", _beside(Behaviour(SLOW_BODY, then=b"x"))),
    Case("readers that read nothing", _beside(Behaviour(PIPELINED, reads=False))),
    Case(f"{STREAMS} malformed byte streams to each port", _garbage),
    Case("links while Kafka and ClickHouse are stopped", _links_alone),
)

OFTEN = ("half-sent requests",)


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
