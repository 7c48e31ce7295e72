"""The store is busy, slow, forbidden or unavailable, or its response contradicts what it did."""

from collections.abc import Callable

import pytest

from tests.faults.case import Case, run_case
from tests.faults.invariants import Expectation
from tests.faults.source import LARGE, SMALL
from tests.faults.system import System
from tests.support import selection
from tests.support.daemons import eventually
from tests.support.http_proxy import Forward, Request, Responder, Response
from tests.support.responses import after_forwarding, cut, refuse, reply

pytestmark = pytest.mark.faults
DAEMONS = (System.consumer, System.notifier)

FAILED = Expectation(statuses=frozenset({"FAILED"}))
DONE = b"<?xml version='1.0'?><CompleteMultipartUploadResult><ETag>made up</ETag></CompleteMultipartUploadResult>"


def _storm(system: System) -> None:
    def fail_sometimes(forward: Forward) -> Response:
        return refuse(503, "SlowDown")(forward) if system.random.random() < 0.4 else forward()

    system.servers.s3_proxy.add(selection.anything, fail_sometimes)
    ids = [system.request(system.random.choice((LARGE, SMALL))) for _ in range(2)]
    system.pause(1, 3)
    system.servers.s3_proxy.clear()
    for each in ids:
        system.wait_for(each, "COMPLETED")


def _part_three_times(system: System) -> None:
    system.servers.s3_proxy.add(
        selection.sends_part(system.random.randint(1, 4)), refuse(500, "InternalError"), times=3
    )
    export_id = system.request(LARGE)
    system.wait_for(export_id, "COMPLETED")
    assert system.outcomes(export_id) == ["completed"]


def _refused_until_retried(matches: Callable[[Request], bool], act: Responder) -> Callable[[System], None]:
    """Fail these requests until an attempt has ended with a retry."""

    def run(system: System) -> None:
        system.servers.s3_proxy.add(matches, act)
        export_id = system.request(LARGE)
        system.wait_for_retries(export_id)
        system.servers.s3_proxy.clear()

    return run


def _permanently(system: System) -> None:
    """It fails until the last attempt: the user is notified, and nothing is left."""
    number = system.random.randint(1, 4)
    system.servers.s3_proxy.add(selection.sends_part(number), refuse(403, "AccessDenied"))
    system.wait_for(system.request(LARGE), "FAILED")


def _reset_in_mid_part(system: System) -> None:
    system.servers.s3_proxy.add(
        selection.sends_part(system.random.randint(1, 4)), cut, times=system.random.randint(1, 3)
    )
    system.wait_for(system.request(LARGE), "COMPLETED")


def _slow(system: System) -> None:
    def slow(forward: Forward) -> Response:
        system.pause(4, 6)  # 5 MiB each: about 1 MB/s
        return forward()

    system.servers.s3_proxy.add(selection.sends_part(), slow)
    system.wait_for(system.request(LARGE), "COMPLETED")


def _lost_answer(system: System) -> None:
    def matches(asked: Request) -> bool:
        return selection.completes(asked) or selection.puts_file(asked)

    system.servers.s3_proxy.add(matches, after_forwarding(refuse(500, "InternalError")), times=1)
    export_id = system.request(system.random.choice((LARGE, SMALL)))
    system.wait_for(export_id, "COMPLETED")


def _lost_manifest_answer(system: System) -> None:
    system.servers.s3_proxy.add(selection.puts_manifest, after_forwarding(cut), times=1)
    system.wait_for(system.request(SMALL), "COMPLETED")


def _false_success(system: System) -> None:
    system.servers.s3_proxy.add(selection.completes, reply(200, DONE), times=1)
    system.wait_for(system.request(LARGE), "COMPLETED")


def _error_in_body(system: System) -> None:
    """S3 may answer a completion with status 200 and an error in the body."""
    wrong = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>made up by the test</Message></Error>"
    system.servers.s3_proxy.add(selection.completes, reply(200, wrong), times=system.random.randint(1, 3))
    system.wait_for(system.request(LARGE), "COMPLETED")


def _away(system: System) -> None:
    system.servers.s3_proxy.add(selection.anything, cut)
    export_id = system.request(LARGE)
    system.wait_until_claimed(export_id)
    system.pause(2, 4)
    system.servers.s3_proxy.clear()


def _restarted(system: System) -> None:
    export_id = system.request(LARGE)
    system.wait_until_claimed(export_id)
    system.pause(0, 1)
    system.servers.s3.stop()
    system.pause(0, 2)
    system.servers.s3.start()


def _expiring(system: System) -> None:
    """The credentials expire during one of the parts, and are renewed later."""
    system.servers.s3_proxy.add(selection.sends_part(system.random.randint(2, 4)), refuse(400, "ExpiredToken"))
    system.servers.s3_proxy.add(lambda each: each.method == "DELETE", refuse(400, "ExpiredToken"))
    export_id = system.request(LARGE)
    system.wait_for_retries(export_id)
    eventually(system.bucket.uploads, what="an upload is left by the attempt that could not abort it")
    system.servers.s3_proxy.clear()


CASES = (
    Case("503 SlowDown storms", _storm),
    Case("one part failing three times", _part_three_times),
    Case("one part failing permanently", _permanently, FAILED),
    Case(
        "one part failing until the next attempt", _refused_until_retried(selection.sends_part(2), refuse(501, "Not"))
    ),
    Case("connection reset during a part", _reset_in_mid_part),
    Case("credentials expiring during an upload, the abort refused too", _expiring),
    Case("bucket deleted", _refused_until_retried(selection.anything, refuse(404, "NoSuchBucket"))),
    Case("access denied", _refused_until_retried(selection.writes, refuse(403, "AccessDenied"))),
    Case("a slow store (1 MB/s)", _slow),
    Case("completion that fails after S3 applied it", _lost_answer),
    Case("the manifest's response lost", _lost_manifest_answer),
    Case("completion that succeeds without an object", _false_success),
    Case("completion that answers 200 with an error in its body", _error_in_body),
    Case("the store unavailable during an export", _away),
    Case("the store restarted during an export", _restarted),
)

OFTEN = (
    "503 SlowDown storms",
    "one part failing permanently",
    "connection reset during a part",
    "completion that fails after S3 applied it",
    "completion that succeeds without an object",
)


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
