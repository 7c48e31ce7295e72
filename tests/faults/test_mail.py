"""The SMTP server is down, busy, strict, unreliable or untrusted, and a user's name is hostile."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import update

from config.tables import users
from tests.faults.case import Case, run_case
from tests.faults.invariants import Expectation
from tests.faults.smtp_sink import at_first, self_signed, smtp_sink
from tests.faults.system import System
from tests.support.daemons import eventually

pytestmark = pytest.mark.faults
DAEMONS = (System.consumer, System.notifier)

NOT_SENT = Expectation(notice=frozenset({"failed"}))


@contextlib.contextmanager
def _sink(system: System, **options: Any) -> Iterator[None]:
    """Replace the real server by a scripted one."""
    folder = system.folder / f"sink-{len(list(system.folder.glob('sink-*')))}"
    with smtp_sink(folder, **options) as (port, mailbox):
        system.mailboxes.append(mailbox)
        system.servers.smtp_proxy.target = port
        yield
        system.servers.smtp_proxy.heal()


def _scripted(make: Callable[[System], dict[str, Any]], state: str = "sent") -> Callable[[System], None]:
    def run(system: System) -> None:
        with _sink(system, **make(system)):
            export_id = system.request()
            eventually(
                lambda: (system.notice(export_id) or {}).get("state") == state,
                seconds=90,
                what=f"the notice is {state}: {system.notice(export_id)}",
            )

    return run


def _down(system: System) -> None:
    system.servers.smtp.stop()
    export_id = system.request()
    system.wait_for(export_id, "COMPLETED")
    eventually(lambda: (system.notice(export_id) or {}).get("attempts", 0) > 1, what="a second attempt")
    system.pause(0, 2)
    system.servers.smtp.start()


def _wrong_certificate(system: System) -> None:
    with _sink(system, tls=self_signed(system.folder)):
        export_id = system.request()
        eventually(lambda: (system.notice(export_id) or {}).get("attempts", 0) > 1, what="a second attempt")
        assert system.emails(export_id) == []


def _hostile_name(system: System) -> None:
    export_id = system.insert()
    name = "Ada\r\nBcc: everybody@evil.test\r\n\r\n" + "x, y@evil.test; " * 60_000
    with system.engine.begin() as connection:
        connection.execute(update(users).where(users.c.id == export_id).values(name=name))
    system.publish_requests(export_id)
    eventually(lambda: system.emails(export_id), what="the email arrives")
    (email,) = system.emails(export_id)
    assert not any("evil.test" in each.recipient for mailbox in system.mailboxes for each in mailbox.mails())
    assert email.message["Bcc"] is None
    assert "evil" not in str(email.message["To"])


CASES = (
    Case("server down for an hour", _down, scaled="until two attempts have failed"),
    Case("4xx, then accept", _scripted(lambda system: {"at_end": at_first(system.random.randint(1, 2), "451 later")})),
    Case("5xx for the message", _scripted(lambda _: {"at_end": at_first(99, "554 no")}, "failed"), NOT_SENT),
    Case("5xx for the recipient", _scripted(lambda _: {"at_recipient": at_first(99, "550 no")}, "failed"), NOT_SENT),
    Case(
        "accepts, then the connection is cut before the reply",
        _scripted(lambda _: {"at_end": at_first(1, None, kept=True)}),
        Expectation(repeats=2),
    ),
    Case("the connection is cut before it is accepted", _scripted(lambda _: {"at_end": at_first(1, None)})),
    Case("greylisting", _scripted(lambda _: {"at_recipient": at_first(2, "450 4.2.0 greylisted, come back later")})),
    Case("an untrusted certificate, then a trusted one", _wrong_certificate),
    Case("a million-recipient name with CRLF in it", _hostile_name),
)

OFTEN = (
    "4xx, then accept",
    "5xx for the recipient",
    "accepts, then the connection is cut before the reply",
    "a million-recipient name with CRLF in it",
)


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
