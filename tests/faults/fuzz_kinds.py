"""Random inputs: mutated Kafka batches and events, extreme values of every column, and random email addresses."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from sqlalchemy import Column, Table, insert, update

from config.tables import batch_exports, notices, outbox, runs, users
from tests.faults.hostile import Evidence, Input, Kind, same_address
from tests.faults.hostile_kinds import COMPLETIONS, REQUESTS, insert_hidden, ring, show, write_record
from tests.faults.source import PROJECT, SMALL
from tests.faults.system import System
from tests.support.extremes import extremes, write
from tests.support.kafka_raw import batch, mutate_batch, record
from tests.support.notices import completion

OPEN = {"QUEUED", "PROCESSING", "CANCELLED"}
UNSENT = {"pending", "sending"}
VALUES: tuple[Any, ...] = (
    *(None, "", "x", "x" * 512, "x" * 513, "\0", "\ud800", "\u202e", "QUEUED", "null", -1, 0, 2**31, 2**63, 1e308),
    *(True, [], {}, [[]], {"a": 1}, "2026-01-01", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "infinity"),
)


def _mutated_batch(system: System, random: Random) -> Input | None:
    """Write a mutated batch; that the records behind it are handled is checked with the next good ones."""
    setting = random.choice((REQUESTS, COMPLETIONS))
    data = mutate_batch(random)
    offset = write_record(system, setting, data)
    return None if offset is None else Input("mutated batch", f"{setting} at offset {offset}: {data.hex()}")


def _mutated_request(system: System, random: Random) -> Input | None:
    event: dict[str, Any] = {"projectId": PROJECT, "batchExportId": "nothing"}
    value = _mutate(event, random)
    offset = write_record(system, REQUESTS, batch([record(value)]))
    place = (system.settings[REQUESTS], 0, offset or 0)

    def problem(found: Evidence) -> str | None:
        # An earlier round may have given a row this id; the request is then about that row.
        return None if found.letters.get(place) or str(event["batchExportId"]) in found.rows else "no dead letter"

    return None if offset is None else Input("mutated request", str(value), problem)


def _mutated_completion(system: System, random: Random) -> Input | None:
    """Write a completion event with an extreme value; it becomes a dead letter or a notice that ends."""
    handle = ended_export(system)
    event = json.loads(event_of(handle))
    value = _mutate(event, random)
    offset = write_record(system, COMPLETIONS, batch([record(value)]))
    place = (system.settings[COMPLETIONS], 0, offset or 0)

    def problem(found: Evidence) -> str | None:
        if found.letters.get(place):
            return None
        # Events with the same event id or of the same end of an export share a notice.
        keys = (handle, event["eventId"], event["batchExportId"])
        noticed = next((found.notices[str(key)] for key in keys if str(key) in found.notices), None)
        return "there is neither a dead letter nor a notice" if noticed is None else _unsent(noticed)

    return None if offset is None else Input("mutated completion", str(value), problem)


def _mutate(event: dict[str, Any], random: Random) -> bytes:
    event[random.choice(list(event))] = random.choice(VALUES)
    return json.dumps(event).encode()


def event_of(handle: str) -> bytes:
    return completion(event_id=f"event-{handle}", project_id=PROJECT, batch_export_id=handle).encode()


def ended_export(system: System) -> str:
    expires = datetime.now(UTC) + timedelta(hours=1)
    handle = system.insert(SMALL, status="COMPLETED", url="https://files.test/x", expires_at=expires)
    system.requested.remove(handle)
    return handle


def _pick(system: System, table: Table, random: Random) -> tuple[Column[Any], object, str]:
    column = random.choice(list(table.c))
    value = random.choice(extremes(system.engine, table, column))
    return column, value, f"{column} = {str(value)[:60]} ({len(str(value))})"


def _extreme_export(system: System, random: Random) -> Input | None:
    column, value, what = _pick(system, batch_exports, random)
    handle = insert_hidden(system)
    where = {"id": handle} if column.name == "user_id" else {"user_id": handle}
    if not write(system.engine, column, value, **where):
        return None
    if column.name != "status":
        show(system, handle)
        ring(system, handle)
    problem: Callable[[Evidence], str | None] = (lambda _: None) if column.name == "status" else _ended(handle)
    return Input("extreme value in batch_exports", what, problem)


def _extreme_run(system: System, random: Random) -> Input | None:
    """Damage the run of a worker that died, or of an attempt that is to be retried."""
    column, value, what = _pick(system, runs, random)
    handle, now, dead = insert_hidden(system), datetime.now(UTC), random.random() < 0.5
    run: dict[str, Any] = {"export_id": handle, "attempt": 1, "project_id": PROJECT, "worker": "fuzz"}
    run |= dict.fromkeys(("claimed_at", "heartbeat_at", "lease_until"), now - timedelta(seconds=60))
    if not dead:
        run |= {"finished_at": now, "outcome": "retry", "next_attempt_at": now}
    with system.engine.begin() as connection:
        connection.execute(insert(runs).values(run))
    if not write(system.engine, column, value, export_id=handle):
        return None
    system.set_status(handle, "PROCESSING" if dead else "QUEUED")
    state = "dead" if dead else "retried"
    # A PROCESSING row without a run is Langfuse's: no sweeper takes it.
    problem: Callable[[Evidence], str | None] = (lambda _: None) if column.name == "export_id" else _ended(handle)
    return Input("extreme value in waybill_runs", f"{what}, {state}", problem)


def _extreme_notice(system: System, random: Random) -> Input | None:
    column, value, what = _pick(system, notices, random)
    handle, now = ended_export(system), datetime.now(UTC)
    row = {"event_id": f"event-{handle}", "channel": "email", "export_id": handle, "attempt": 1, "created_at": now}
    row |= {"status": "COMPLETED", "payload": event_of(handle).decode(), "state": "pending"}
    with system.engine.begin() as connection:
        connection.execute(insert(notices).values(row | {"next_attempt_at": now + timedelta(hours=1)}))
    key = "export_id" if column.name == "event_id" else "event_id"
    if not write(system.engine, column, value, **{key: row[key]}):
        return None
    if column.name != "next_attempt_at":
        with system.engine.begin() as connection:
            connection.execute(update(notices).where(notices.c[key] == row[key]).values(next_attempt_at=now))

    def problem(found: Evidence) -> str | None:
        noticed = found.notices.get(str(row[key]))
        return "the notice is missing" if noticed is None else _unsent(noticed)

    return Input("extreme value in waybill_notices", what, problem)


def _extreme_event(system: System, random: Random) -> Input | None:
    """Damage an event of the outbox; that all events are published or refused is checked after the round."""
    column, value, what = _pick(system, outbox, random)
    handle, now = ended_export(system), datetime.now(UTC)
    row = {"topic": system.settings[COMPLETIONS], "key": handle, "payload": event_of(handle).decode()}
    with system.engine.begin() as connection:
        made = insert(outbox).values(row | {"created_at": now, "published_at": now}).returning(outbox.c.id)
        number = connection.execute(made).scalar_one()
    if not write(system.engine, column, value, id=number):
        return None
    if column.name not in {"published_at", "id"}:
        with system.engine.begin() as connection:
            connection.execute(update(outbox).where(outbox.c.id == number).values(published_at=None))
    return Input("extreme value in waybill_outbox", what)


def _extreme_user(system: System, random: Random) -> Input | None:
    column, value, what = _pick(system, users, random)
    handle = insert_hidden(system)
    if not write(system.engine, column, value, id=handle):
        return None
    show(system, handle)
    ring(system, handle)
    return Input("extreme value in users", what, _announced(handle))


PIECES = (
    *(
        "ada",
        "a.b",
        "x" * 64,
        "zoë",
        "=?utf-8?q?eve?=",
        '"a b"',
        "a,b",
        "<",
        ">",
        " ",
        "\r\n",
        "\t",
        "\u202e",
        "(c)",
        "@",
    ),
    *("%", "!", "bücher", "例え", "evil.test", "=?utf-8?q?e?=", "127.0.0.1", "[::1]", "xn--a", "ß", "\u212a", "."),
)


def _random_address(system: System, random: Random) -> Input | None:
    """Request an export for a user with a random address: its email goes to this address or to nobody."""
    handle = uuid.uuid4().hex
    local, domain = ("".join(random.choices(PIECES, k=random.randint(0, 2))) for _ in range(2))
    given = random.choice((f"{handle}{local}@{domain}.test", f"{handle}{local}@{domain}", f"{local}@{handle}.{domain}"))
    system.insert(SMALL, "JSONL", id=handle, user={"email": given})
    ring(system, handle)

    def problem(found: Evidence) -> str | None:
        if others := [each for each in found.recipients if handle in each and not same_address(each, given)]:
            return f"an email went to {others}"
        return _announced(handle)(found)

    return Input("random address", repr(given), problem)


def _ended(handle: str) -> Callable[[Evidence], str | None]:
    def problem(found: Evidence) -> str | None:
        status, log = found.rows.get(handle, ("missing", None))
        if status in OPEN or status == "missing" or (status == "FAILED" and not log):
            return f"its row is {status} with the reason {log!r}"
        return None

    return problem


def _announced(handle: str) -> Callable[[Evidence], str | None]:
    def problem(found: Evidence) -> str | None:
        noticed = found.notices.get(handle)
        return _ended(handle)(found) or ("there is no notice" if noticed is None else _unsent(noticed))

    return problem


def _unsent(noticed: list[tuple[str, str | None]]) -> str | None:
    if any(state in UNSENT or (state == "failed" and not error) for state, error in noticed):
        return f"its notices are {noticed}"
    return None


KINDS: tuple[Kind, ...] = (
    *[_mutated_batch] * 4,
    _mutated_request,
    _mutated_completion,
    _extreme_export,
    _extreme_run,
    _extreme_notice,
    _extreme_event,
    _extreme_user,
    _random_address,
)
