"""The cases of the group `storage`, which run on every store."""

from collections.abc import Callable

from tests.faults.case import Case
from tests.faults.invariants import Expectation
from tests.faults.source import LARGE, SMALL
from tests.faults.stores import StoreDialect
from tests.faults.system import System
from tests.support import selection
from tests.support.daemons import eventually
from tests.support.http_proxy import Forward, Request, Response
from tests.support.responses import after_forwarding, cut, reply

FAILED = Expectation(statuses=frozenset({"FAILED"}))


def _storm(system: System) -> None:
    def fail_sometimes(forward: Forward) -> Response:
        return system.store.refuse(503, "SlowDown")(forward) if system.random.random() < 0.4 else forward()

    system.servers.store_proxy.add(selection.anything, fail_sometimes)
    ids = [system.request(system.random.choice((LARGE, SMALL))) for _ in range(2)]
    system.pause(1, 3)
    system.servers.store_proxy.clear()
    for each in ids:
        system.wait_for(each, "COMPLETED")


def _part_three_times(system: System) -> None:
    system.servers.store_proxy.add(
        system.store.sends_part(system.random.randint(1, 4)), system.store.refuse(500, "InternalError"), times=3
    )
    export_id = system.request(LARGE)
    system.wait_for(export_id, "COMPLETED")
    assert system.outcomes(export_id) == ["completed"]


def _refused_until_retried(
    choose: Callable[[StoreDialect], Callable[[Request], bool]], status: int, code: str
) -> Callable[[System], None]:
    """Fail these requests until an attempt has ended with a retry."""

    def run(system: System) -> None:
        system.servers.store_proxy.add(choose(system.store), system.store.refuse(status, code))
        export_id = system.request(LARGE)
        system.wait_for_retries(export_id)
        system.servers.store_proxy.clear()

    return run


def _permanently(system: System) -> None:
    """It fails until the last attempt: the user is notified, and nothing is left."""
    number = system.random.randint(1, 4)
    system.servers.store_proxy.add(system.store.sends_part(number), system.store.refuse(403, "AccessDenied"))
    system.wait_for(system.request(LARGE), "FAILED")


def _reset_in_mid_part(system: System) -> None:
    system.servers.store_proxy.add(
        system.store.sends_part(system.random.randint(1, 4)), cut, times=system.random.randint(1, 3)
    )
    system.wait_for(system.request(LARGE), "COMPLETED")


def _slow(system: System) -> None:
    def slow(forward: Forward) -> Response:
        system.pause(4, 6)  # 5 MiB each: about 1 MB/s
        return forward()

    system.servers.store_proxy.add(system.store.sends_part(None), slow)
    system.wait_for(system.request(LARGE), "COMPLETED")


def _lost_answer(system: System) -> None:
    def matches(asked: Request) -> bool:
        return system.store.completes(asked) or system.store.puts_file(asked)

    system.servers.store_proxy.add(matches, after_forwarding(system.store.refuse(500, "InternalError")), times=1)
    export_id = system.request(system.random.choice((LARGE, SMALL)))
    system.wait_for(export_id, "COMPLETED")


def _lost_manifest_answer(system: System) -> None:
    system.servers.store_proxy.add(system.store.puts_manifest, after_forwarding(cut), times=1)
    system.wait_for(system.request(SMALL), "COMPLETED")


def _false_success(system: System) -> None:
    system.servers.store_proxy.add(system.store.completes, system.store.claim_success, times=1)
    system.wait_for(system.request(LARGE), "COMPLETED")


def _error_in_body(system: System) -> None:
    """S3 may answer a completion with status 200 and an error in the body."""
    wrong = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>made up by the test</Message></Error>"
    system.servers.store_proxy.add(system.store.completes, reply(200, wrong), times=system.random.randint(1, 3))
    system.wait_for(system.request(LARGE), "COMPLETED")


def _away(system: System) -> None:
    system.servers.store_proxy.add(selection.anything, cut)
    export_id = system.request(LARGE)
    system.wait_until_claimed(export_id)
    system.pause(2, 4)
    system.servers.store_proxy.clear()


def _restarted(system: System) -> None:
    export_id = system.request(LARGE)
    system.wait_until_claimed(export_id)
    system.pause(0, 1)
    system.servers.store.stop()
    system.pause(0, 2)
    system.servers.store.start()


def _expiring(system: System) -> None:
    """The credentials expire during one of the parts, and are renewed later."""
    expired = system.store.refuse(400, "ExpiredToken")
    system.servers.store_proxy.add(system.store.sends_part(system.random.randint(2, 4)), expired)
    system.servers.store_proxy.add(system.store.aborts, expired)
    export_id = system.request(LARGE)
    system.wait_for_retries(export_id)
    eventually(system.bucket.uploads, what="an upload is left by the attempt that could not abort it")
    system.servers.store_proxy.clear()


CASES = (
    Case("503 SlowDown storms", _storm),
    Case("one part failing three times", _part_three_times),
    Case("one part failing permanently", _permanently, FAILED),
    Case(
        "one part failing until the next attempt", _refused_until_retried(lambda store: store.sends_part(2), 501, "Not")
    ),
    Case("connection reset during a part", _reset_in_mid_part),
    Case("credentials expiring during an upload, the abort refused too", _expiring),
    Case("bucket deleted", _refused_until_retried(lambda _: selection.anything, 404, "NoSuchBucket")),
    Case("access denied", _refused_until_retried(lambda _: selection.writes, 403, "AccessDenied")),
    Case("a slow store (1 MB/s)", _slow),
    Case("completion that fails after the store applied it", _lost_answer),
    Case("the manifest's response lost", _lost_manifest_answer),
    Case("completion that succeeds without an object", _false_success),
    Case("completion that answers 200 with an error in its body", _error_in_body),
    Case("the store unavailable during an export", _away),
    Case("the store restarted during an export", _restarted),
)

ONLY_S3 = ("completion that answers 200 with an error in its body",)
LISTED = ("credentials expiring during an upload, the abort refused too",)
"""Cases for stores that list unfinished uploads."""

OFTEN = (
    "503 SlowDown storms",
    "one part failing permanently",
    "connection reset during a part",
    "completion that fails after the store applied it",
    "completion that succeeds without an object",
)
