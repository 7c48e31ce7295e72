"""Describes hostile inputs, and reads what became of them: rows, notices, dead letters and emails."""

import contextlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

import idna
from sqlalchemy import select

from config.settings import load
from config.tables import batch_exports, notices, users
from runtime.dead_letters import read_all
from tests.faults.invariants import Expectation
from tests.faults.system import System


@dataclass(frozen=True)
class Evidence:
    """What became of all inputs.

    Rows are (status, reason) by their id and their user's, notices (state, error) by export id and by event id; dead
    letters are known by topic, partition and last offset; `recipients` are the addresses of the SMTP envelopes, and
    `stored` those of all users.
    """

    rows: Mapping[str, tuple[str, str | None]]
    notices: Mapping[str, list[tuple[str, str | None]]]
    letters: Mapping[tuple[str, int, int], str]
    recipients: Counter[str]
    stored: frozenset[str]


@dataclass(frozen=True)
class Input:
    """One input, or `count` of a kind that are given together.

    `problem` returns why it has not ended with a reason, or None. An input with an `expectation` is an export, with the
    id `handle`, that must also keep every invariant.
    """

    kind: str
    what: str
    problem: Callable[[Evidence], str | None] = lambda _: None
    handle: str = ""
    expectation: Expectation | None = None
    count: int = 1


Kind = Callable[[System, Random], Input | None]
"""Gives the system an input; returns None if a server that is stopped did not take it."""


def collect(system: System) -> Evidence:
    """Read what became of the inputs so far."""
    with system.engine.connect() as connection:
        of_rows = select(batch_exports.c.id, batch_exports.c.user_id, batch_exports.c.status, batch_exports.c.log)
        rows: dict[str, tuple[str, str | None]] = {}
        for export_id, user_id, status, log in connection.execute(of_rows):
            rows |= dict.fromkeys((export_id, user_id), (status, log))
        noticed: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
        of_notices = select(notices.c.export_id, notices.c.event_id, notices.c.state, notices.c.error)
        for export_id, event_id, state, error in connection.execute(of_notices):
            noticed[export_id].append((state, error))
            noticed[event_id].append((state, error))
        stored = frozenset(connection.scalars(select(users.c.email).where(users.c.email.is_not(None))))
    letters = {}
    for each in read_all(load(system.settings)):
        with contextlib.suppress(KeyError, ValueError):
            last = int(each.why.get("last-offset", each.why["offset"]))
            letters[each.why["topic"], int(each.why["partition"]), last] = each.why["reason"]
    emails = (email.recipient for mailbox in system.mailboxes for email in mailbox.mails())
    return Evidence(rows, noticed, letters, Counter(emails), stored)


def must_end(handle: str, statuses: set[str]) -> Callable[[Evidence], str | None]:
    """Check that the row of this user has one of these statuses, and a reason if it is FAILED."""

    def problem(found: Evidence) -> str | None:
        status, log = found.rows.get(handle, ("missing", None))
        if status not in statuses or (status == "FAILED" and not log):
            return f"its row is {status[:20]} with the reason {log!r}"
        return None

    return problem


def problems(found: Evidence, inputs: list[Input]) -> list[tuple[Input, str]]:
    """Every input that has not ended with a reason, with what is wrong."""
    return [(each, why) for each in inputs if (why := each.problem(found)) is not None]


def strangers(found: Evidence) -> list[str]:
    """Return a sentence for every address that got an email although no user has it."""
    unknown = found.recipients.keys() - found.stored
    return [
        f"an email went to {each}" for each in unknown if not any(same_address(each, stored) for stored in found.stored)
    ]


def same_address(reached: str, stored: str) -> bool:
    """Whether an envelope's recipient is the stored address: its domain may be in ASCII form."""
    local, _, domain = reached.rpartition("@")
    kept, _, wanted = stored.strip(" ").rpartition("@")
    if not wanted.isascii():
        try:
            domain, wanted = idna.decode(domain), unicodedata.normalize("NFC", wanted)
        except idna.IDNAError:
            return False
    return local == kept and domain.lower() == wanted.lower()
