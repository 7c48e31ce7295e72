"""The mail server is down, busy, strict, unreliable or not who it says it is, and the user's name is hostile."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import update

from config.tables import users
from tests.faults.case import Case, play
from tests.faults.invariants import Promise
from tests.faults.smtp_sink import at_first, self_signed, sink
from tests.faults.system import Scene
from tests.support.daemons import eventually

pytestmark = pytest.mark.faults
CREW = (Scene.consumer, Scene.notifier)

UNTOLD = Promise(notice=frozenset({"failed"}))


@contextlib.contextmanager
def _sink(scene: Scene, **options: Any) -> Iterator[None]:
    """Put a scripted server in the place of the real one."""
    folder = scene.folder / f"sink-{len(list(scene.folder.glob('sink-*')))}"
    with sink(folder, **options) as (port, mailbox):
        scene.mailboxes.append(mailbox)
        scene.servers.smtp_wire.target = port
        yield
        scene.servers.smtp_wire.heal()


def _scripted(make: Callable[[Scene], dict[str, Any]], state: str = "sent") -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        with _sink(scene, **make(scene)):
            export_id = scene.request()
            eventually(
                lambda: (scene.notice(export_id) or {}).get("state") == state,
                seconds=90,
                what=f"the notice is {state}: {scene.notice(export_id)}",
            )

    return do


def _down(scene: Scene) -> None:
    scene.servers.smtp.off()
    export_id = scene.request()
    scene.becomes(export_id, "COMPLETED")
    eventually(lambda: (scene.notice(export_id) or {}).get("attempts", 0) > 1, what="a second attempt")
    scene.pause(0, 2)
    scene.servers.smtp.on()


def _wrong_certificate(scene: Scene) -> None:
    with _sink(scene, tls=self_signed(scene.folder)):
        export_id = scene.request()
        eventually(lambda: (scene.notice(export_id) or {}).get("attempts", 0) > 1, what="a second attempt")
        assert scene.mails(export_id) == []


def _hostile_name(scene: Scene) -> None:
    export_id = scene.ask()
    name = "Ada\r\nBcc: everybody@evil.test\r\n\r\n" + "x, y@evil.test; " * 60_000
    with scene.engine.begin() as connection:
        connection.execute(update(users).where(users.c.id == export_id).values(name=name))
    scene.ring(export_id)
    eventually(lambda: scene.mails(export_id), what="the mail arrives")
    (mail,) = scene.mails(export_id)
    assert not any("evil.test" in each.recipient for mailbox in scene.mailboxes for each in mailbox.mails())
    assert mail.message["Bcc"] is None
    assert "evil" not in str(mail.message["To"])


CASES = (
    Case("server down for an hour", _down, scaled="until two attempts have failed"),
    Case("4xx, then accept", _scripted(lambda scene: {"at_end": at_first(scene.random.randint(1, 2), "451 later")})),
    Case("5xx for the message", _scripted(lambda _: {"at_end": at_first(99, "554 no")}, "failed"), UNTOLD),
    Case("5xx for the recipient", _scripted(lambda _: {"at_recipient": at_first(99, "550 no")}, "failed"), UNTOLD),
    Case(
        "accepts, then the connection dies before its answer",
        _scripted(lambda _: {"at_end": at_first(1, None, kept=True)}),
        Promise(repeats=2),
    ),
    Case("the connection dies before it is accepted", _scripted(lambda _: {"at_end": at_first(1, None)})),
    Case("greylisting", _scripted(lambda _: {"at_recipient": at_first(2, "450 4.2.0 greylisted, come back later")})),
    Case("a wrong certificate, until it is right", _wrong_certificate),
    Case("a million-recipient name with CRLF in it", _hostile_name),
)

OFTEN = (
    "4xx, then accept",
    "5xx for the recipient",
    "accepts, then the connection dies before its answer",
    "a million-recipient name with CRLF in it",
)


def test_what_is_promised_holds(stage: Scene, case: Case, number: int) -> None:
    play(case, stage, number)
