"""The receiver of a webhook cuts the connection, and the notifier is killed after the receiver has the message."""

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from tests.faults.case import Case, run_case
from tests.faults.system import System
from tests.support.daemons import Daemon, eventually
from tests.support.webhooks import SECRET, Request, Respond, WebhookReceiver, answer_status, cut, webhook_receiver

pytestmark = pytest.mark.faults
_running: list[WebhookReceiver] = []


@pytest.fixture(scope="module", autouse=True)
def receiver() -> Iterator[None]:
    """The receiver that the notifiers of this group are set to; it must run before they start."""
    with webhook_receiver() as running:
        _running.append(running)
        yield


def _notifier(system: System) -> Daemon:
    return system.notifier(
        WAYBILL_WEBHOOK_URL=_running[-1].url,
        WAYBILL_WEBHOOK_SECRET=SECRET,
        WAYBILL_WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8",
    )


DAEMONS = (System.consumer, _notifier)


def _request(system: System, *script: Respond) -> str:
    """Request an export whose messages get these responses, and then acceptance."""
    _running[-1].requests.clear()
    _running[-1].script[:] = script
    return system.request()


def _wait_until_sent(system: System, export_id: str, channel: str = "webhook") -> None:
    eventually(
        lambda: (system.notice(export_id, channel) or {}).get("state") == "sent",
        seconds=90,
        what=f"the message of the channel {channel} is sent",
    )


def _check(system: System, export_id: str, copies: int, unanswered: int) -> None:
    """Check that the receiver got this many signed copies with one id, and how many responses were missed."""
    assert [each["data"]["batchExportId"] for each in _running[-1].payloads()] == [export_id] * copies
    assert len({each.headers["webhook-id"] for each in _running[-1].requests}) == 1
    lines = [line for each in system.daemons for line in each.lines() if line.get("export_id") == export_id]
    missed = [line for line in lines if line.get("outcome") == "unanswered" and line["channel"] == "webhook"]
    assert len(missed) == unanswered


def _cut_after_reading(system: System) -> None:
    times = system.random.randint(1, 2)
    export_id = _request(system, *[cut] * times)
    _wait_until_sent(system, export_id)
    _check(system, export_id, 1 + times, times)


def _killed_before_the_row_changes(system: System) -> None:
    """The receiver has the message and may have responded; the notifier has not recorded it."""
    (first,) = system.alive("notify")

    def kill(connection: socket.socket, request: Request) -> None:
        # Its email must not be in doubt, too.
        _wait_until_sent(system, json.loads(request.body)["data"]["batchExportId"], "mail")
        first.process.kill()
        first.process.wait()
        with contextlib.suppress(OSError):
            answer_status(200)(connection, request)

    export_id = _request(system, kill)
    first.process.wait(90)
    _notifier(system)
    _wait_until_sent(system, export_id)
    _check(system, export_id, 2, 1)


def _errors(system: System) -> None:
    statuses = [system.random.choice((302, 404, 429, 500, 503)) for _ in range(2)]
    export_id = _request(system, *map(answer_status, statuses))
    _wait_until_sent(system, export_id)
    _check(system, export_id, 3, 0)


CASES = (
    Case("the receiver cuts the connection after it has read the request", _cut_after_reading),
    Case("the notifier killed between the request and the update of the row", _killed_before_the_row_changes),
    Case("errors, then accept", _errors),
)

OFTEN = ("the notifier killed between the request and the update of the row",)


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
