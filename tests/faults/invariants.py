"""What must be true once the dust has settled, whatever happened: each sentence that is broken is given back."""

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from config.tables import batch_exports, notices, outbox, runs
from tests.faults.system import ENDED, Scene
from tests.support.daemons import Daemon
from tests.support.exports import row_of, runs_of

OPEN = ("pending", "sending")
OWN = ("completed", "retry", "rejected", "released")
"""Outcomes that the worker itself writes, and nobody else for it."""


@dataclass(frozen=True)
class Promise:
    """What a case promises beyond the rules: which endings are right, and how the user is told.

    `events` are the statuses told of, in order, where it is not the last one alone. `notice` is how the notice of the
    last event may end. `repeats` is how often the same mail may arrive: 2 where nobody can know whether it was taken.
    """

    statuses: frozenset[str] = frozenset({"COMPLETED"})
    events: tuple[str, ...] | None = None
    notice: frozenset[str] = frozenset({"sent"})
    repeats: int = 1

    def told(self, status: str) -> tuple[str, ...]:
        """The statuses that the events tell of an export that ended so."""
        if self.events is not None:
            return self.events
        return () if status == "CANCELLED" else (status,)


COMPLETED = Promise()


def settled(scene: Scene, export_ids: list[str], seconds: float = 120) -> None:
    """Wait until nothing more will happen to these exports; AssertionError says what is still under way."""
    deadline = time.monotonic() + seconds
    while waiting := list(_under_way(scene, export_ids)):
        assert time.monotonic() < deadline, f"not settled within {seconds:g} s: {waiting[:5]}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Seen:
    """What came out of it all: objects and open uploads by key, event ids and mails (by Message-ID) by export."""

    keys: list[str]
    uploads: list[str]
    published: Mapping[str, set[str]]
    mails: Mapping[str, Counter[str]]


def look(scene: Scene) -> Seen:
    """See what is there now."""
    published: dict[str, set[str]] = defaultdict(set)
    for each in scene.completions():
        published[each["batchExportId"]].add(each["eventId"])
    mails: dict[str, Counter[str]] = defaultdict(Counter)
    for mail in (mail for mailbox in scene.mailboxes for mail in mailbox.mails()):
        mails[mail.recipient.partition("@")[2].partition(".")[0]][str(mail.message["Message-ID"])] += 1
    return Seen(sorted(scene.bucket.objects()), scene.bucket.uploads(), published, mails)


def broken(scene: Scene, seen: Seen, export_id: str, promise: Promise) -> list[str]:
    """Every rule that an export which has settled breaks."""
    row = row_of(scene.engine, export_id)
    status = str(row["status"])
    if status not in promise.statuses:
        return [f"the row is {status}, not {' or '.join(promise.statuses)}: {runs_of(scene.engine, export_id)}"]
    told = promise.told(status)
    found = [*_of_files(scene, seen, export_id, row), *_of_events(scene, seen.published[export_id], export_id, told)]
    return [*found, *_of_mails(scene.notice(export_id), seen.mails[export_id], told, promise)]


def mails_of_others(scene: Scene) -> int:
    """How many mails the only notifier has not sent; 0 where there are several."""
    notifiers = _notifiers(scene)
    if len(notifiers) != 1:
        return 0
    with scene.engine.connect() as connection:
        sent = connection.execute(select(func.count()).where(notices.c.state == "sent")).scalar_one()
    return int(sent - notifiers[0].metric("waybill_notices_total", outcome="sent"))


def uncounted(scene: Scene, of_others: int = 0) -> list[str]:
    """Where the counters of the consumers that live, and of the only notifier, differ from the tables.

    `of_others` is how many mails were sent by notifiers that are gone.
    """
    with scene.engine.connect() as connection:
        attempts = [dict(row) for row in connection.execute(select(runs)).mappings()]
    problems: list[str] = []
    for each in scene.living("consumer"):
        mine = [run for run in attempts if f"-{each.process.pid}-" in run["worker"]]
        problems += _differences(each, Counter(run["outcome"] for run in mine), mine)
    if len(_notifiers(scene)) == 1 and (more := mails_of_others(scene) - of_others):
        problems.append(f"the notifier counts other mails than the table has: {more:+} there")
    return problems


def _notifiers(scene: Scene) -> list[Daemon]:
    return [each for each in scene.daemons if each.log.name.startswith("notify")]


def _differences(consumer: Daemon, outcomes: Counter[str], mine: list[dict[str, Any]]) -> Iterator[str]:
    for outcome in OWN:
        if (counted := consumer.metric("waybill_exports_total", outcome=outcome)) != outcomes[outcome]:
            yield f"{consumer.log.name} counts {counted:g} {outcome}, and the table has {outcomes[outcome]}"
    rows = sum(run["rows"] for run in mine if run["outcome"] == "completed")
    if (counted := consumer.metric("waybill_rows_total")) != rows:
        yield f"{consumer.log.name} counts {counted:g} rows, and the table has {rows}"


def _under_way(scene: Scene, export_ids: list[str]) -> Iterator[str]:
    with scene.engine.connect() as connection:
        states = dict(connection.execute(select(batch_exports.c.id, batch_exports.c.status)).all())
        unfinished = set(connection.execute(select(runs.c.export_id).where(runs.c.finished_at.is_(None))).scalars())
        waiting = set(connection.execute(select(outbox.c.key).where(outbox.c.published_at.is_(None))).scalars())
        told = connection.execute(select(notices.c.export_id, notices.c.state)).all()
        letters = Counter(connection.execute(select(outbox.c.key)).scalars())
    counted = Counter(export_id for export_id, _ in told)
    untold = {export_id for export_id, state in told if state in OPEN}
    for each in export_ids:
        if each not in states:
            continue  # the application deleted it
        if states[each] not in ENDED:
            yield f"{each} is {states[each]}"
        elif each in unfinished:
            yield f"{each} has an open run"
        elif each in waiting:
            yield f"{each} has an event that is not published"
        elif each in untold or counted[each] < letters[each]:
            yield f"{each} is not told"


def _of_files(scene: Scene, seen: Seen, export_id: str, row: dict[str, Any]) -> Iterator[str]:
    keys = [key for key in seen.keys if export_id in key]
    if uploads := [key for key in seen.uploads if export_id in key]:
        yield f"an upload is left open: {uploads}"
    if row["status"] != "COMPLETED":
        if keys:
            yield f"it is {row['status']}, and there are {keys}"
        return
    (*_, run) = runs_of(scene.engine, export_id)
    if run["outcome"] != "completed":
        yield f"it is COMPLETED, and its last run is {run['outcome']}"
    if keys != [run["object_key"], f"{run['object_key']}.manifest.json"]:
        yield f"it is COMPLETED, and there are {keys}"
        return
    data, manifest = scene.bucket.read(min(keys)), json.loads(scene.bucket.read(max(keys)))
    said = {(each["rows"], each["bytes"], each["sha256"]) for each in (run, manifest)}
    if said != {(scene.source.count(row["query"]), len(data), hashlib.sha256(data).hexdigest())}:
        yield f"run and manifest say {said} of a file of {len(data)} bytes"
    if manifest["attempt"] != run["attempt"]:
        yield f"the manifest is of attempt {manifest['attempt']}, and the run is {run['attempt']}"
    yield from scene.source.problems(row["query"], row["format"], data)


def _of_events(scene: Scene, published: set[str], export_id: str, told: tuple[str, ...]) -> Iterator[str]:
    with scene.engine.connect() as connection:
        query = select(outbox.c.payload).where(outbox.c.key == export_id).order_by(outbox.c.id)
        written = [json.loads(each) for each in connection.execute(query).scalars()]
    if tuple(each["status"] for each in written) != told:
        yield f"its events are {[each['status'] for each in written]}, and not {told}"
    if published != {each["eventId"] for each in written}:
        yield f"{len(written)} events were written, and {len(published)} published"


def _of_mails(
    notice: Mapping[str, Any] | None, copies: Counter[str], told: tuple[str, ...], promise: Promise
) -> Iterator[str]:
    if not told:
        if copies or notice:
            yield f"nobody was to be told, and there are {copies} and {notice}"
        return
    if notice is None or notice["state"] not in promise.notice:
        yield f"its notice is {notice}"
    elif notice["state"] == "sent" and len(copies) != len(told):
        yield f"{len(told)} mails were to be sent, and there are {copies}"
    if copies and max(copies.values()) > promise.repeats:
        yield f"a mail was repeated: {copies}"


def eventually_none(find: Callable[[], list[str]], seconds: float = 15) -> list[str]:
    """Look until nothing is wrong; what is still wrong in the end. Counters follow their tables a moment later."""
    deadline = time.monotonic() + seconds
    while (problems := find()) and time.monotonic() < deadline:
        time.sleep(0.3)
    return problems
