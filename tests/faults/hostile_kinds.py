"""Hostile inputs of every kind: Kafka records, rows, HTTP clients, email addresses and names."""

import contextlib
import json
import time
import uuid
from collections.abc import Callable
from random import Random
from typing import Any

from sqlalchemy import or_, update

from config.tables import batch_exports
from tests.faults.hostile import Evidence, Input, Kind, must_end
from tests.faults.invariants import Expectation
from tests.faults.source import PROJECT, SMALL
from tests.faults.system import System
from tests.support.clients import HALF_SENT, PIPELINED, SLOW_BODY, WHOLE, Behaviour, crowd
from tests.support.extremes import write
from tests.support.garbage import make_garbage, send_bytes
from tests.support.kafka_raw import BAD_NAME, CODECS, batch, produce, record

STREAMS = 20
"""Malformed byte streams that are sent together, each on a connection of its own."""

CROWD = 200
REQUESTS = "WAYBILL_REQUESTS_TOPIC"
COMPLETIONS = "WAYBILL_COMPLETIONS_TOPIC"
LATE = 20
"""Repeats of an email that a test without a limit of its own allows; the count of unanswered emails is the limit."""


def write_record(system: System, setting: str, data: bytes) -> int | None:
    """Write one batch to the first partition, not through the proxy; returns its offset, None if it was refused."""
    with contextlib.suppress(OSError, AssertionError):  # it is stopped
        written = produce(system.servers.kafka.running.bootstrap, system.settings[setting], 0, data)
        return written.offset if written.error == 0 else None
    return None


def _dead(system: System, setting: str, offset: int) -> Callable[[Evidence], str | None]:
    place = (system.settings[setting], 0, offset)
    return lambda found: None if found.letters.get(place) else f"no dead letter has the place {place}"


def _unreadable(setting: str) -> Kind:
    def give(system: System, random: Random) -> Input | None:
        codec = random.choice([0, *CODECS])
        offset = write_record(system, setting, batch([record(b"bad", headers=[(BAD_NAME, b"x")])], codec=codec))
        if offset is None:
            return None
        what = f"a header name that is not UTF-8 at offset {offset}, codec {codec}"
        return Input(f"unreadable record on {_topic(setting)}", what, _dead(system, setting, offset))

    return give


MALFORMED: tuple[bytes | None, ...] = (
    *(None, b"", b"\xff\xfe\xc3\x28", b"not JSON", b"null", b"[]", b"1e400", b"{}", b'"\\ud800"', b'{"projectId": 1}'),
    *(b'{"projectId": "", "batchExportId": ""}', b'{"projectId": "p\\u0000", "batchExportId": "e"}'),
    *(b"[" * 100_000, b"9" * 50_000, b"x" * 900_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
    json.dumps({"projectId": "x" * 513, "batchExportId": "e"}).encode(),
    json.dumps({"projectId": PROJECT, "batchExportId": ["e"]}).encode(),
    b'{"projectId": "nobody", "batchExportId": "nothing"}',
)


def _malformed(setting: str) -> Kind:
    def give(system: System, random: Random) -> Input | None:
        value = random.choice(MALFORMED)
        offset = write_record(system, setting, batch([record(value)]))
        if offset is None:
            return None
        what = f"the value {str(value)[:60]} at offset {offset}"
        return Input(f"malformed event on {_topic(setting)}", what, _dead(system, setting, offset))

    return give


DEEP = ("[" * 1_000 + "]" * 1_000, '{"a":' * 5_000 + "1" + "}" * 5_000, "9" * 5_000)
ROWS: dict[str, tuple[Any, ...]] = {
    "query": (
        *(f'{{"tableName": "traces", "filter": [], "orderBy": null, "x": {text}}}' for text in DEEP),
        *("null", "[]", '{"tableName": 5}', '{"tableName": "traces", "filter": 1e400}'),
    ),
    "created_at": ("infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59"),
    "project_id": ("", "x" * 513, "x" * 2_000),
    "format": ("", "XLSX", "x" * 513, "\x01\x1b[31m"),
}
"""Values with which an export ends FAILED; those of HARMLESS let it end COMPLETED, too."""

HARMLESS: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("updated_at", "finished_at", "expires_at"), ("infinity", "-infinity", "0044-03-15 00:00:00 BC", "10000-01-01")
)


def bad_row(system: System, random: Random) -> Input:
    """Insert a row that can't be loaded or can't be exported; half of them with an event."""
    column, values = random.choice([*ROWS.items(), *HARMLESS.items()])
    return insert_row(system, column, random.choice(values), with_event=random.random() < 0.5)


def insert_row(system: System, column: str, value: Any, *, with_event: bool) -> Input:
    """Insert an export with this value in a column, written by SQL."""
    handle, what = insert_hidden(system), f"{column} = {str(value)[:60]}"
    assert write(system.engine, batch_exports.c[column], value, user_id=handle), f"the database refuses {what}"
    show(system, handle)
    if with_event:
        ring(system, handle)
    statuses = {"FAILED", "COMPLETED"} if column in HARMLESS else {"FAILED"}
    return Input("row that can't be loaded", what, must_end(handle, statuses), handle=handle)


def insert_hidden(system: System, **values: Any) -> str:
    """Insert an export that no worker takes yet; returns its id, which is also its user's."""
    handle = system.insert(SMALL, "JSONL", **(values | {"status": "CANCELLED"}))
    system.requested.remove(handle)
    return handle


def show(system: System, handle: str) -> None:
    """Let the workers take an export that `insert_hidden` inserted."""
    with system.engine.begin() as connection:
        same = or_(batch_exports.c.id == handle, batch_exports.c.user_id == handle)
        connection.execute(update(batch_exports).where(same).values(status="QUEUED"))


def ring(system: System, export_id: str) -> None:
    """Publish a request event; while Kafka is stopped, the sweeper finds the row."""
    event = json.dumps({"projectId": PROJECT, "batchExportId": export_id}).encode()
    write_record(system, REQUESTS, batch([record(event)]))


def bad_client(system: System, random: Random) -> Input | None:
    """Send malformed byte streams to the ports of a daemon, or let many clients misbehave at one for a second."""
    if not (running := system.alive()):
        return None
    daemon, given = random.choice(running), 0
    with contextlib.suppress(AssertionError, OSError):  # the daemon may be killed meanwhile
        urls = [daemon.url, daemon.links] if daemon.log.name.startswith("consumer") else [daemon.url]
        if random.random() < 0.1:
            shapes = (Behaviour(HALF_SENT), Behaviour(WHOLE), Behaviour(SLOW_BODY), Behaviour(PIPELINED, reads=False))
            with crowd(random.choice(urls), CROWD, random.choice(shapes)):
                time.sleep(random.uniform(1, 2))
            given = CROWD
        while given < STREAMS:
            send_bytes(random.choice(urls), make_garbage(random))
            given += 1
    return Input("misbehaving HTTP client", f"{given} clients of {daemon.log.name}", count=given) if given else None


ADDRESSES = (
    "x@=?utf-8?q?{}.test?=",
    "=?utf-8?q?victim=40{}.test=3E?=@attacker.test",
    "=?utf-8?q?a=0d=0aRCPT_TO:=3Ceve=40{}.test=3E?=@attacker.test",
    "ada@{}.test.",
    "ada@{}.test\r\nBcc: eve@evil.test",
    "ada@{}.test>\r\nDATA",
    "<ada@{}.test>",
    "Ada <ada@{}.test>",
    "ada@{}.test, eve@evil.test",
    '"ada\\"@evil.test"@{}.test',
    "ada@{}..test",
    "ada@\u212aelvin.{}.test",
    "ada@{}.test\x7f",
    "ada\u202e@{}.test",
    "ada{}@[127.0.0.1]",
    "ada{}@127.0.0.1",
    "a" * 65 + "@{}.test",
    "ada.{}",
)
"""Texts that are not one address; `{}` is the export's id."""

NAMES = (
    "traces\r\nBcc: eve@evil.test",
    "=?utf-8?q?a=0d=0aBcc:_eve=40evil.test?=",
    "<script>alert(1)</script>",
    "\u202egnp.exe",
    "\x01\x1b[31m",
    "x" * 100_000,
    "{{ 7 * 7 }}",
    "",
)


def bad_address(system: System, random: Random) -> Input:
    """Request an export for a user whose address is none: the export ends, and nobody gets an email."""
    handle, text = uuid.uuid4().hex, random.choice(ADDRESSES)
    given = text.format(handle)
    system.insert(SMALL, "CSV", id=handle, user={"email": given})

    def problem(found: Evidence) -> str | None:
        if reached := [each for each in found.recipients if handle in each]:
            return f"an email went to {reached}"
        if any(state == "failed" and error for state, error in found.notices.get(handle, [])):
            return None
        return f"its notices are {found.notices.get(handle)}"

    ring(system, handle)
    expectation = Expectation(notice=frozenset({"failed"}))
    return Input("hostile address", repr(given)[:80], problem, handle, expectation)


def bad_name(system: System, random: Random) -> Input:
    """Request an export with a hostile name; its email goes to its user alone."""
    handle, name = uuid.uuid4().hex, random.choice(NAMES)
    system.insert(SMALL, "JSONL", id=handle, name=name, user={"name": random.choice(NAMES)})
    ring(system, handle)
    expectation = Expectation(repeats=LATE)
    return Input("hostile name", repr(name)[:80], handle=handle, expectation=expectation)


def _topic(setting: str) -> str:
    return "requests" if setting == REQUESTS else "completions"


KINDS: tuple[Kind, ...] = (
    _unreadable(REQUESTS),
    _unreadable(COMPLETIONS),
    _malformed(REQUESTS),
    _malformed(COMPLETIONS),
    bad_row,
    bad_row,
    bad_client,
    bad_address,
    bad_name,
)
