"""A damaged row of the outbox or of the notices stops neither the relay nor the notifier, and ends."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaError
from prometheus_client import CollectorRegistry
from sqlalchemy import Column, Engine, insert, select

from cli import build
from config.errors import Unavailable
from config.metrics import Metrics
from config.settings import load
from config.tables import batch_exports, notices, outbox, users
from consumer.outbox import relay
from notify.deliver import MailTransport, NotifierContext
from notify.notices import Notices
from notify.notifier import Notifier
from notify.smtp_url import parse_server
from runtime.clock import DatabaseClock
from runtime.http import Health
from tests.services.kafka import Kafka
from tests.support.extremes import extremes, write
from tests.support.intake import FakePublisher
from tests.support.notices import SENDER, MailServer, add_export, add_user, completion, mail_server, send_due

OPEN = {"pending", "sending"}
SETTINGS = {"KAFKA_BOOTSTRAP_SERVERS": "nowhere:1", "WAYBILL_NOTICE_HOURS": "1"}


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server(enable_SMTPUTF8=True) as running:
        yield running


def put_event(engine: Engine, number: int) -> None:
    now = DatabaseClock(engine).now()
    row = {"id": number, "topic": "export-completions", "key": f"k{number}", "payload": "{}", "created_at": now}
    with engine.begin() as connection:
        connection.execute(insert(outbox).values(row))


def unpublished(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(select(outbox.c.id).where(outbox.c.published_at.is_(None))))


@pytest.mark.parametrize("column", outbox.c, ids=lambda column: column.name)
def test_extreme_values_of_an_event_stop_no_relay(engine: Engine, column: Column[Any]) -> None:
    for number, value in enumerate(extremes(engine, outbox, column), 1):
        put_event(engine, number)
        write(engine, column, value, id=number)
    put_event(engine, 1000)
    publisher, metrics, clock = FakePublisher(), Metrics(CollectorRegistry()), DatabaseClock(engine)

    relay(engine, publisher, clock.now, metrics)  # type: ignore[arg-type] # stands in for Kafka

    assert unpublished(engine) == []
    assert b"k1000" in [message.key for message in publisher.sent]


def test_events_that_kafka_refuses_for_good_are_counted_and_hold_up_no_other(kafka: Kafka, engine: Engine) -> None:
    topic = "relay-poison"
    kafka.create_topics(topic)
    metrics, clock = Metrics(CollectorRegistry()), DatabaseClock(engine)
    damaged = [
        {"topic": "", "payload": "x"},
        {"topic": "not a topic", "payload": "x"},
        {"topic": "x" * 300, "payload": "x"},
        {"topic": topic, "payload": "x" * 20_000_000},
    ]
    with engine.begin() as connection:
        for number in range(120):
            row = damaged[number] if number < len(damaged) else {"topic": topic, "payload": "good"}
            connection.execute(insert(outbox).values(key=str(number), created_at=clock.now(), **row))
    publisher = build.publisher(load(kafka.environment()))

    assert relay(engine, publisher, clock.now, metrics) == 116

    assert unpublished(engine) == []
    assert metrics.registry.get_sample_value("waybill_outbox_refused_total") == len(damaged)


def test_events_of_a_topic_that_is_missing_wait_and_hold_up_no_other(engine: Engine) -> None:
    clock, missing = DatabaseClock(engine), KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    for number in range(1, 251):
        put_event(engine, number)
    publisher = FakePublisher(answers=[missing] * 150)

    with pytest.raises(Unavailable, match="150 events"):
        relay(engine, publisher, clock.now, Metrics(CollectorRegistry()))  # type: ignore[arg-type] # stands in for Kafka

    assert unpublished(engine) == list(range(1, 151))


@pytest.mark.parametrize("column", notices.c, ids=lambda column: column.name)
def test_extreme_values_of_a_notice_stop_no_email_and_the_notice_ends(
    engine: Engine, server: MailServer, column: Column[Any]
) -> None:
    store = Notices(engine, retry_for=timedelta(hours=1), first_delay=timedelta(seconds=5), lease=timedelta(seconds=60))
    context = NotifierContext(engine, store, MailTransport(parse_server(server.url), SENDER), None, None)
    one = Notifier(load(SETTINGS), context, Metrics(CollectorRegistry()), Health({}), asyncio.Event(), FakePublisher())  # type: ignore[arg-type] # stands in for Kafka
    add_user(engine)
    now = one.clock.now()
    expires = now + timedelta(hours=1)
    for number, value in enumerate(extremes(engine, notices, column)):
        add_export(engine, id=f"bad-{number}", expires_at=expires)
        store.record(completion(event_id=f"bad-{number}", batch_export_id=f"bad-{number}"), now - timedelta(minutes=1))
        write(engine, column, value, event_id=f"bad-{number}")
    add_export(engine, id="good", expires_at=expires)
    store.record(completion(event_id="good", batch_export_id="good"), now)

    async def run() -> None:
        for _ in range(5):
            await send_due(one)
            await one.measure()
            await one._until_next()

    asyncio.run(run())

    with engine.connect() as connection:
        query = select(notices.c.export_id, notices.c.state, notices.c.error)
        rows = [(str(export)[:40], state, error) for export, state, error in connection.execute(query)]
    assert [row for row in rows if row[1] in OPEN or (row[1] == "failed" and not row[2])] == []
    assert ("good", "sent", None) in rows


@pytest.mark.slow
@pytest.mark.parametrize("table", [users, batch_exports], ids=lambda table: table.name)
def test_extreme_values_of_an_export_and_its_user_stop_no_email(engine: Engine, server: MailServer, table: Any) -> None:
    store = Notices(engine, retry_for=timedelta(hours=1), first_delay=timedelta(seconds=5), lease=timedelta(seconds=60))
    context = NotifierContext(engine, store, MailTransport(parse_server(server.url), SENDER), None, None)
    one = Notifier(load(SETTINGS), context, Metrics(CollectorRegistry()), Health({}), asyncio.Event(), FakePublisher())  # type: ignore[arg-type] # stands in for Kafka
    now = one.clock.now()
    expires = now + timedelta(hours=1)
    names = {}
    for column in table.c:
        if column.name in {"id", "project_id", "user_id"}:
            continue
        for number, value in enumerate(extremes(engine, table, column)):
            name = f"{column.name}-{number}"
            add_user(engine, id=name, email=f"{name}@example.com")
            add_export(engine, id=name, user_id=name, expires_at=expires)
            write(engine, column, value, id=name)
            store.record(completion(event_id=name, batch_export_id=name), now - timedelta(minutes=1))
            names[name] = value
    add_user(engine)
    add_export(engine, id="good", expires_at=expires)
    store.record(completion(event_id="good", batch_export_id="good"), now)

    async def run() -> None:
        for _ in range(3):
            await send_due(one)

    asyncio.run(run())

    with engine.connect() as connection:
        query = select(notices.c.export_id, notices.c.state, notices.c.error)
        rows = [(export, state, error) for export, state, error in connection.execute(query)]
    assert [(*row, str(names.get(row[0]))[:60]) for row in rows if row[1] in OPEN] == []
    assert ("good", "sent", None) in rows
