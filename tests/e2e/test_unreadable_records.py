"""Records that no client library can decode: each ends in the dead-letter topic, and every good record is handled."""

import json
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine

from config.settings import Settings, load
from runtime.dead_letters import DeadLetter, read_all
from tests.e2e.completions import add_ended_export
from tests.services.stacks import Stack
from tests.support.daemons import Daemon, daemon, eventually, waybill
from tests.support.exports import queue, row_of
from tests.support.kafka_raw import BAD_NAME, CODECS, GZIP, LZ4, SNAPPY, ZSTD, batch, produce, record, varint

pytestmark = pytest.mark.slow

LAUNCHER = [sys.executable, "-m", "tests.e2e.scripted_consumer"]
QUICK = {"WAYBILL_SWEEP_SECONDS": "600", "WAYBILL_HEARTBEAT_SECONDS": "0.3", "WAYBILL_SLOTS": "8"}
"""Without sweeps, an export is found only by its request event."""

BAD = [(BAD_NAME, b"x")]
RESTARTED = "the Kafka consumer stopped"


@dataclass(frozen=True)
class Poison:
    """Batches with records that can't be decoded; `good` are the values of the others.

    `lost` has the first and the last offset of every dead letter after the start of the batch, and its content.
    """

    name: str
    data: bytes
    lost: Sequence[tuple[int, int, str]]


def poisons(one: bytes, two: bytes) -> list[Poison]:
    """Return poison that every broker accepts, between two good records."""
    marked = [record(one), record(b"bad", 1, headers=BAD), record(two, 2)]
    outside = [record(one), record(b"bad", 7), record(two, 2)]
    null = [record(one), record(None, 1, key=None, headers=BAD), record(two, 2)]
    return [
        Poison("the name of a header", batch(marked), [(1, 1, "value")]),
        *(Poison(f"the same in {CODECS[each]}", batch(marked, codec=each), [(1, 1, "value")]) for each in CODECS),
        Poison("the name of a header of an empty record", batch(null), [(1, 1, "record")]),
        Poison("an offset outside of the batch", batch(outside), [(1, 1, "record")]),
    ]


def poisons_for_a_credulous_broker(one: bytes, two: bytes) -> list[Poison]:
    """Return poison that Apache Kafka rejects, but that a damaged disk or another broker may deliver."""
    good = [record(one), record(two, 1)]
    torn = [record(one), varint(500) + b"torn", record(two, 2)]
    return [
        Poison("a wrong checksum", batch(good, crc=1), [(0, 1, "batch")]),
        Poison("an unknown codec", batch(good, codec=6), [(0, 1, "batch")]),
        Poison("an unknown format", batch(good, magic=9), [(0, 1, "batch")]),
        Poison("bytes that are not gzip", batch(good, codec=GZIP, body=b"garbage"), [(0, 1, "batch")]),
        Poison("bytes that are not zstd", batch(good, codec=ZSTD, body=b"garbage"), [(0, 1, "batch")]),
        Poison("a record that is too short", batch([*good, record(b"x" * 90, 2)[:40]]), [(2, 2, "batch")]),
        Poison("a record with a wrong length", batch(torn), [(1, 2, "batch")]),
        Poison("more records than there are", batch(good, count=5), [(2, 4, "batch")]),
    ]


def event(export_id: str) -> bytes:
    return json.dumps({"projectId": "project-1", "batchExportId": export_id}).encode()


def queue_export(engine: Engine) -> str:
    export_id, now = f"quick-{uuid.uuid4().hex[:8]}", datetime.now(UTC)
    queue(engine, export_id, created_at=now, updated_at=now)
    return export_id


def dead_letters(settings: Settings, count: int) -> list[DeadLetter]:
    """Wait for this many dead letters."""
    return eventually(
        lambda: found if len(found := list(read_all(settings))) >= count else None, what=f"{count} dead letters"
    )


def places(letters: Sequence[DeadLetter]) -> list[tuple[int, int, str]]:
    """Return first and last offset, and the content, of each dead letter, in the order of the offsets."""
    return sorted((int(each.why["offset"]), int(each.why["last-offset"]), each.why["content"]) for each in letters)


def committed(settings: Settings, group: str, topic: str) -> int:
    reader = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": group, "log_level": 0})
    try:
        (found,) = reader.committed([TopicPartition(topic, 0)], timeout=20)
        return int(found.offset)
    finally:
        reader.close()


def wait_for_exports(engine: Engine, export_ids: Sequence[str]) -> None:
    def missing() -> list[str]:
        return [each for each in export_ids if row_of(engine, each)["status"] != "COMPLETED"]

    eventually(lambda: not missing(), what=f"exports {missing()} complete")


def logged(one: Daemon, text: str) -> bool:
    return any(text in line.get("message", "") for line in one.lines())


def test_poison_among_requests_is_dead_lettered_and_every_good_request_runs(
    stack: Stack, engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = load(stack.environment())
    bootstrap, topic = str(settings.kafka_bootstrap_servers), settings.requests_topic
    expected: list[tuple[int, int, str]] = []
    exports: list[str] = []
    inputs = [poisons]
    if "embedded" in request.node.callspec.id:
        inputs.append(poisons_for_a_credulous_broker)

    def export() -> bytes:
        exports.append(queue_export(engine))
        return event(exports[-1])

    with daemon("consumer", tmp_path, {**stack.environment(), **QUICK}, launcher=LAUNCHER) as running:
        assert produce(bootstrap, topic, 0, batch([record(export())])).error == 0
        for which in range(len(inputs)):
            for number in range(len(inputs[which](b"", b""))):
                before = len(exports)
                poison = inputs[which](export(), export())[number]
                written = produce(bootstrap, topic, 0, poison.data)
                assert written.error == 0, poison.name
                if poison.lost == [(0, 1, "batch")]:
                    del exports[before:]  # nothing of this batch can be read
                if poison.name == "a record with a wrong length":
                    del exports[before + 1 :]
                expected += [(written.offset + a, written.offset + b, what) for a, b, what in poison.lost]
        last = produce(bootstrap, topic, 0, batch([record(export())]))
        wait_for_exports(engine, exports)
        letters = dead_letters(settings, len(expected))
        assert places(letters) == expected
        assert {each.why["topic"] for each in letters} == {topic}
        assert {each.why["partition"] for each in letters} == {"0"}
        assert running.metric("waybill_unreadable_records_total", topic=topic) == len(expected)
        assert running.metric("waybill_dead_letters_total", verdict="unreadable") == len(expected)
        assert not logged(running, RESTARTED)
        eventually(
            lambda: committed(settings, settings.consumer_group, topic) == last.offset + 1, what="all offsets committed"
        )
    marked = next(each for each in letters if each.value == b"bad")
    assert marked.headers == ((r"\xff\xfe\xc3(", b"x"),)
    assert marked.key == b"key"
    assert "the name of a header is not UTF-8" in marked.why["reason"]


def test_poison_among_completions_is_dead_lettered_and_every_email_is_sent(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    settings = load(stack.environment())
    bootstrap, topic = str(settings.kafka_bootstrap_servers), settings.completions_topic
    emails = {"EMAIL_FROM_ADDRESS": "exports@waybill.test", "WAYBILL_SWEEP_SECONDS": "600"}
    written, events = [], []
    with daemon("notify", tmp_path, {**stack.environment(), **emails}) as running:
        for codec in (0, GZIP, SNAPPY, LZ4, ZSTD):
            events += (two := [add_ended_export(engine), add_ended_export(engine)])
            records = [record(two[0].encode()), record(b"bad", 1, headers=BAD), record(two[1].encode(), 2)]
            written.append(produce(bootstrap, topic, 0, batch(records, codec=codec)))
        assert [each.error for each in written] == [0] * 5
        wanted = {f"ada@{each.event_id.removeprefix('event-')}.test" for each in events}
        eventually(lambda: wanted <= {each.recipient for each in stack.mails()}, what="every email is sent")
        letters = dead_letters(settings, 5)
        assert places(letters) == [(each.offset + 1, each.offset + 1, "value") for each in written]
        assert {each.why["topic"] for each in letters} == {topic}
        assert running.metric("waybill_unreadable_records_total", topic=topic) == 5
        assert running.metric("waybill_notices_total", outcome="unreadable") == 5
        assert not logged(running, RESTARTED)


def test_a_dead_letter_that_was_readable_but_for_a_header_is_replayed(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    settings = load(stack.environment())
    bootstrap, topic = str(settings.kafka_bootstrap_servers), settings.requests_topic
    export_id = queue_export(engine)
    with daemon("consumer", tmp_path, {**stack.environment(), **QUICK}, launcher=LAUNCHER):
        produce(bootstrap, topic, 0, batch([record(None, headers=BAD)]))
        produce(bootstrap, topic, 0, batch([record(event(export_id), headers=BAD)]))
        dead_letters(settings, 2)
        replayed = waybill("dead-letters", "replay", "--all", environment=stack.environment())
        assert "Replayed 1 dead letter." in replayed.stdout + replayed.stderr
        assert "the bytes of a record that can't be decoded" in replayed.stderr + replayed.stdout
        assert replayed.returncode == 1
        wait_for_exports(engine, [export_id])


def test_requests_for_missing_rows_do_not_delay_the_requests_behind_them(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    settings = load(stack.environment())
    bootstrap, topic = str(settings.kafka_bootstrap_servers), settings.requests_topic
    export_id = queue_export(engine)
    with daemon("consumer", tmp_path, {**stack.environment(), **QUICK}, launcher=LAUNCHER) as running:
        missing = [record(event(f"missing-{number}"), number) for number in range(40)]
        written = produce(bootstrap, topic, 0, batch([*missing, record(event(export_id), 40)]))
        began = datetime.now(UTC)
        wait_for_exports(engine, [export_id])
        assert (datetime.now(UTC) - began).total_seconds() < 10
        dead_letters(settings, 40)
        assert running.metric("waybill_requests_total", verdict="missing") == 40
        end = written.offset + 41
        eventually(lambda: committed(settings, settings.consumer_group, topic) == end, what="all offsets are committed")
