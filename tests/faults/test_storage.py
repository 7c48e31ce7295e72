"""The store is busy, slow, forbidden or gone, or says that it did what it did not, or the other way round."""

from collections.abc import Callable

import pytest

from tests.faults.case import Case, play
from tests.faults.invariants import Promise
from tests.faults.source import LARGE, SMALL
from tests.faults.system import Scene
from tests.support import selection
from tests.support.daemons import eventually
from tests.support.http_proxy import Act, Answer, Ask, Asked
from tests.support.responses import but_first_do, cut, refuse, reply

pytestmark = pytest.mark.faults
CREW = (Scene.consumer, Scene.notifier)

FAILED = Promise(statuses=frozenset({"FAILED"}))
DONE = b"<?xml version='1.0'?><CompleteMultipartUploadResult><ETag>made up</ETag></CompleteMultipartUploadResult>"


def _storm(scene: Scene) -> None:
    def moody(ask: Ask) -> Answer:
        return refuse(503, "SlowDown")(ask) if scene.random.random() < 0.4 else ask()

    scene.servers.store.add(selection.anything, moody)
    ids = [scene.request(scene.random.choice((LARGE, SMALL))) for _ in range(2)]
    scene.pause(1, 3)
    scene.servers.store.clear()
    for each in ids:
        scene.becomes(each, "COMPLETED")


def _part_three_times(scene: Scene) -> None:
    scene.servers.store.add(selection.sends_part(scene.random.randint(1, 4)), refuse(500, "InternalError"), times=3)
    export_id = scene.request(LARGE)
    scene.becomes(export_id, "COMPLETED")
    assert scene.outcomes(export_id) == ["completed"]


def _refused_until_retried(matches: Callable[[Asked], bool], act: Act) -> Callable[[Scene], None]:
    """Have these requests fail until an attempt has been put off."""

    def do(scene: Scene) -> None:
        scene.servers.store.add(matches, act)
        export_id = scene.request(LARGE)
        scene.retried(export_id)
        scene.servers.store.clear()

    return do


def _for_ever(scene: Scene) -> None:
    """It fails until the last attempt: the user is told, and nothing is left."""
    number = scene.random.randint(1, 4)
    scene.servers.store.add(selection.sends_part(number), refuse(403, "AccessDenied"))
    scene.becomes(scene.request(LARGE), "FAILED")


def _reset_in_mid_part(scene: Scene) -> None:
    scene.servers.store.add(selection.sends_part(scene.random.randint(1, 4)), cut, times=scene.random.randint(1, 3))
    scene.becomes(scene.request(LARGE), "COMPLETED")


def _slow(scene: Scene) -> None:
    def slow(ask: Ask) -> Answer:
        scene.pause(4, 6)  # 5 MiB each: about 1 MB/s
        return ask()

    scene.servers.store.add(selection.sends_part(), slow)
    scene.becomes(scene.request(LARGE), "COMPLETED")


def _lost_answer(scene: Scene) -> None:
    def matches(asked: Asked) -> bool:
        return selection.completes(asked) or selection.puts_file(asked)

    scene.servers.store.add(matches, but_first_do(refuse(500, "InternalError")), times=1)
    export_id = scene.request(scene.random.choice((LARGE, SMALL)))
    scene.becomes(export_id, "COMPLETED")


def _lost_manifest_answer(scene: Scene) -> None:
    scene.servers.store.add(selection.puts_manifest, but_first_do(cut), times=1)
    scene.becomes(scene.request(SMALL), "COMPLETED")


def _empty_promise(scene: Scene) -> None:
    scene.servers.store.add(selection.completes, reply(200, DONE), times=1)
    scene.becomes(scene.request(LARGE), "COMPLETED")


def _error_in_body(scene: Scene) -> None:
    """S3 may answer 200 to a completion, and say in the body that it failed."""
    wrong = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>made up by the test</Message></Error>"
    scene.servers.store.add(selection.completes, reply(200, wrong), times=scene.random.randint(1, 3))
    scene.becomes(scene.request(LARGE), "COMPLETED")


def _away(scene: Scene) -> None:
    scene.servers.store.add(selection.anything, cut)
    export_id = scene.request(LARGE)
    scene.running(export_id)
    scene.pause(2, 4)
    scene.servers.store.clear()


def _restarted(scene: Scene) -> None:
    export_id = scene.request(LARGE)
    scene.running(export_id)
    scene.pause(0, 1)
    scene.servers.s3.off()
    scene.pause(0, 2)
    scene.servers.s3.on()


def _expiring(scene: Scene) -> None:
    """The credentials end with one of the parts, and are renewed later."""
    scene.servers.store.add(selection.sends_part(scene.random.randint(2, 4)), refuse(400, "ExpiredToken"))
    scene.servers.store.add(lambda each: each.method == "DELETE", refuse(400, "ExpiredToken"))
    export_id = scene.request(LARGE)
    scene.retried(export_id)
    eventually(scene.bucket.uploads, what="an upload is left by the attempt that could not abort it")
    scene.servers.store.clear()


CASES = (
    Case("503 SlowDown storms", _storm),
    Case("one part failing three times", _part_three_times),
    Case("one part failing for ever", _for_ever, FAILED),
    Case(
        "one part failing until the next attempt", _refused_until_retried(selection.sends_part(2), refuse(501, "Not"))
    ),
    Case("connection reset in mid-part", _reset_in_mid_part),
    Case("credentials expiring in mid-upload, the abort refused too", _expiring),
    Case("bucket gone", _refused_until_retried(selection.anything, refuse(404, "NoSuchBucket"))),
    Case("access denied", _refused_until_retried(selection.writes, refuse(403, "AccessDenied"))),
    Case("a slow store (1 MB/s)", _slow),
    Case("completion that answers an error although it succeeded", _lost_answer),
    Case("the manifest's answer lost", _lost_manifest_answer),
    Case("completion that answers success although it failed", _empty_promise),
    Case("completion that answers 200 with an error in its body", _error_in_body),
    Case("the store away in mid-export", _away),
    Case("the store restarted in mid-export", _restarted),
)

OFTEN = (
    "503 SlowDown storms",
    "one part failing for ever",
    "connection reset in mid-part",
    "completion that answers an error although it succeeded",
    "completion that answers success although it failed",
)


def test_what_is_promised_holds(stage: Scene, case: Case, number: int) -> None:
    play(case, stage, number)
