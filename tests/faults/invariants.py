"""The invariants of exports after any fault; each violation is returned as a sentence."""

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from config.tables import batch_exports, notices, outbox, runs
from tests.faults.system import ENDED, System
from tests.support.daemons import Daemon
from tests.support.exports import row_of, runs_of

OPEN = ("pending", "sending")
OWN = ("completed", "retry", "rejected", "released")
"""Outcomes that only the worker of the attempt writes."""


@dataclass(frozen=True)
class Expectation:
    """What a case allows besides the rules: the final statuses, and how the user is notified.

    `events` are the statuses of the completion events, in order, if there are more than the last one. `notice` are the
    final states of the last event's notice. `repeats` is how often the same email may arrive: 2 where the notifier
    can't know whether the server accepted it.
    """

    statuses: frozenset[str] = frozenset({"COMPLETED"})
    events: tuple[str, ...] | None = None
    notice: frozenset[str] = frozenset({"sent"})
    repeats: int = 1

    def announced(self, status: str) -> tuple[str, ...]:
        """The statuses of the completion events of an export with this final status."""
        if self.events is not None:
            return self.events
        return () if status == "CANCELLED" else (status,)


COMPLETED = Expectation()


def wait_until_settled(system: System, export_ids: list[str], seconds: float = 120) -> None:
    """Wait until nothing more will happen to these exports; AssertionError names what is still in progress."""
    deadline = time.monotonic() + seconds
    while waiting := list(_in_progress(system, export_ids)):
        assert time.monotonic() < deadline, f"not settled within {seconds:g} s: {waiting[:5]}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Observed:
    """What is there: the keys of objects and open uploads, and event ids and emails (by Message-ID) of each export.

    `unanswered` is how often notifiers logged (and counted) that an email of the export may have been sent.
    """

    keys: list[str]
    uploads: list[str]
    published: Mapping[str, set[str]]
    emails: Mapping[str, Counter[str]]
    unanswered: Counter[str]


def observe(system: System) -> Observed:
    """Read what is there now."""
    published: dict[str, set[str]] = defaultdict(set)
    for each in system.completions():
        published[each["batchExportId"]].add(each["eventId"])
    emails: dict[str, Counter[str]] = defaultdict(Counter)
    for email in (email for mailbox in system.mailboxes for email in mailbox.mails()):
        emails[email.recipient.partition("@")[2].partition(".")[0]][str(email.message["Message-ID"])] += 1
    uploads = system.bucket.uploads() if system.store.lists_uploads else []
    return Observed(sorted(system.bucket.objects()), uploads, published, emails, _unanswered(system))


def violations(system: System, observed: Observed, export_id: str, expectation: Expectation) -> list[str]:
    """Every rule that a settled export violates."""
    row = row_of(system.engine, export_id)
    status = str(row["status"])
    if status not in expectation.statuses:
        return [f"the row is {status}, not {' or '.join(expectation.statuses)}: {runs_of(system.engine, export_id)}"]
    announced = expectation.announced(status)
    found = [
        *_check_files(system, observed, export_id, row),
        *_check_events(system, observed.published[export_id], export_id, announced),
    ]
    copies, counted = observed.emails[export_id], observed.unanswered[export_id]
    return [*found, *_check_emails(system.notice(export_id), copies, counted, announced, expectation)]


def uncounted_emails(system: System) -> int:
    """The number of sent emails that the only notifier did not count; 0 if there are several notifiers."""
    notifiers = _notifiers(system)
    if len(notifiers) != 1:
        return 0
    with system.engine.connect() as connection:
        sent = connection.execute(select(func.count()).where(notices.c.state == "sent")).scalar_one()
    return int(sent - notifiers[0].metric("waybill_notices_total", outcome="sent"))


def metric_differences(system: System, uncounted_before: int = 0) -> list[str]:
    """The differences between the tables and the counters of running consumers and of the only notifier.

    `uncounted_before` is the number of emails that stopped notifiers sent.
    """
    with system.engine.connect() as connection:
        attempts = [dict(row) for row in connection.execute(select(runs)).mappings()]
    problems: list[str] = []
    for each in system.alive("consumer"):
        mine = [run for run in attempts if each.worker in run["worker"]]
        try:
            problems += _differences(each, Counter(run["outcome"] for run in mine), mine)
        except OSError as error:  # its port may still be closing the connections of a crowd
            problems.append(f"the metrics of {each.log.name} can't be read: {error}")
    if len(_notifiers(system)) == 1 and (more := uncounted_emails(system) - uncounted_before):
        problems.append(f"the notifier and the table count different numbers of emails: {more:+} in the table")
    return problems


def _unanswered(system: System) -> Counter[str]:
    """Read the logs, also those of notifiers that were killed: their counters are lost."""
    lines = (line for log in system.folder.glob("notify-*.log") for line in log.read_text().splitlines())
    records = (json.loads(line) for line in lines if line.startswith("{") and '"unanswered"' in line)
    return Counter(each["export_id"] for each in records if each.get("outcome") == "unanswered")


def _notifiers(system: System) -> list[Daemon]:
    return [each for each in system.daemons if each.log.name.startswith("notify")]


def _differences(consumer: Daemon, outcomes: Counter[str], mine: list[dict[str, Any]]) -> Iterator[str]:
    for outcome in OWN:
        if (counted := consumer.metric("waybill_exports_total", outcome=outcome)) != outcomes[outcome]:
            yield f"{consumer.log.name} counts {counted:g} {outcome}, and the table has {outcomes[outcome]}"
    rows = sum(run["rows"] for run in mine if run["outcome"] == "completed")
    if (counted := consumer.metric("waybill_rows_total")) != rows:
        yield f"{consumer.log.name} counts {counted:g} rows, and the table has {rows}"


def _in_progress(system: System, export_ids: list[str]) -> Iterator[str]:
    with system.engine.connect() as connection:
        states = dict(connection.execute(select(batch_exports.c.id, batch_exports.c.status)).all())
        unfinished = set(connection.execute(select(runs.c.export_id).where(runs.c.finished_at.is_(None))).scalars())
        waiting = set(connection.execute(select(outbox.c.key).where(outbox.c.published_at.is_(None))).scalars())
        announced = connection.execute(select(notices.c.export_id, notices.c.state)).all()
        events = Counter(connection.execute(select(outbox.c.key)).scalars())
    counted = Counter(export_id for export_id, _ in announced)
    unsent = {export_id for export_id, state in announced if state in OPEN}
    for each in export_ids:
        if each not in states:
            continue  # deleted by the case
        if states[each] not in ENDED:
            yield f"{each} is {states[each]}"
        elif each in unfinished:
            yield f"{each} has an open run"
        elif each in waiting:
            yield f"{each} has an event that is not published"
        elif each in unsent or counted[each] < events[each]:
            yield f"{each} has an unsent notice"


def _check_files(system: System, observed: Observed, export_id: str, row: dict[str, Any]) -> Iterator[str]:
    keys = [key for key in observed.keys if export_id in key]
    if uploads := [key for key in observed.uploads if export_id in key]:
        yield f"an upload is left open: {uploads}"
    if row["status"] != "COMPLETED":
        if keys:
            yield f"it is {row['status']}, but there are {keys}"
        return
    (*_, run) = runs_of(system.engine, export_id)
    if run["outcome"] != "completed":
        yield f"it is COMPLETED, and its last run is {run['outcome']}"
    if keys != [run["object_key"], f"{run['object_key']}.manifest.json"]:
        yield f"it is COMPLETED, and there are {keys}"
        return
    data, manifest = system.bucket.read(min(keys)), json.loads(system.bucket.read(max(keys)))
    said = {(each["rows"], each["bytes"], each["sha256"]) for each in (run, manifest)}
    if said != {(system.source.count(row["query"]), len(data), hashlib.sha256(data).hexdigest())}:
        yield f"run and manifest say {said} of a file of {len(data)} bytes"
    if manifest["attempt"] != run["attempt"]:
        yield f"the manifest is of attempt {manifest['attempt']}, and the run is {run['attempt']}"
    yield from system.source.problems(row["query"], row["format"], data)


def _check_events(system: System, published: set[str], export_id: str, announced: tuple[str, ...]) -> Iterator[str]:
    with system.engine.connect() as connection:
        query = select(outbox.c.payload).where(outbox.c.key == export_id).order_by(outbox.c.id)
        written = [json.loads(each) for each in connection.execute(query).scalars()]
    if tuple(each["status"] for each in written) != announced:
        yield f"its events are {[each['status'] for each in written]}, not {announced}"
    if published != {each["eventId"] for each in written}:
        yield f"{len(written)} events were written, and {len(published)} published"


def _check_emails(
    notice: Mapping[str, Any] | None,
    copies: Counter[str],
    unanswered: int,
    announced: tuple[str, ...],
    expectation: Expectation,
) -> Iterator[str]:
    if not announced:
        if copies or notice:
            yield f"no notice was expected, but there are {copies} and {notice}"
        return
    if notice is None or notice["state"] not in expectation.notice:
        yield f"its notice is {notice}"
    elif notice["state"] == "sent" and len(copies) != len(announced):
        yield f"{len(announced)} emails were expected, but there are {copies}"
    if copies and max(copies.values()) > expectation.repeats:
        yield f"an email was repeated: {copies}"
    if (repeated := copies.total() - len(copies)) > unanswered:
        yield f"{repeated} emails were repeated, and {unanswered} were counted as unanswered"


def eventually_none(find: Callable[[], list[str]], seconds: float = 15) -> list[str]:
    """Look until there are no problems; returns those that remain. Counters follow their tables a moment later."""
    deadline = time.monotonic() + seconds
    while (problems := find()) and time.monotonic() < deadline:
        time.sleep(0.3)
    return problems
