"""A stack, embedded or real, has all that Waybill needs, and belongs to one test."""

import smtplib
import time
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import fsspec
from confluent_kafka import Producer
from sqlalchemy import create_engine, inspect, text

from config import settings
from tests.services.s3 import Bucket
from tests.services.stacks import Servers, Stack

TOPICS = ("WAYBILL_REQUESTS_TOPIC", "WAYBILL_COMPLETIONS_TOPIC", "WAYBILL_DEAD_LETTER_TOPIC")


def send_mail(stack: Stack, subject: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "exports@waybill.test", "ada@example.test", subject
    message.set_content("text")
    address = urlsplit(stack.environment()["SMTP_CONNECTION_URL"])
    assert address.hostname is not None
    assert address.port is not None
    with smtplib.SMTP(address.hostname, address.port, timeout=20) as client:
        client.send_message(message)


def subjects(stack: Stack, count: int) -> list[str]:
    deadline = time.monotonic() + 20
    while len(stack.mails()) < count:
        assert time.monotonic() < deadline, "the mail did not arrive"
        time.sleep(0.02)
    return [mail.message["Subject"] for mail in stack.mails()]


def store(stack: Stack, key: str, content: bytes) -> None:
    read = settings.load(stack.environment())
    options = {}
    if read.storage_url is None:
        assert read.bucket is not None
        options = Bucket(stack.environment()["LANGFUSE_S3_BATCH_EXPORT_ENDPOINT"], read.bucket).options()
    with fsspec.open(f"{read.destination}/{key}", "wb", auto_mkdir=True, **options) as file:
        file.write(content)


def ask_clickhouse(stack: Stack, statement: str) -> str:
    environment = stack.environment()
    address = f"{environment['CLICKHOUSE_URL']}/?database={environment['CLICKHOUSE_DB']}"
    with urlopen(Request(address, data=statement.encode()), timeout=60) as answer:
        body: bytes = answer.read()
    return body.decode().strip()


def test_the_settings_of_a_stack_are_valid(stack: Stack) -> None:
    needs = ["KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "CLICKHOUSE_URL", "SMTP_CONNECTION_URL", "EMAIL_FROM_ADDRESS"]
    read = settings.load(stack.environment(), needs=needs)
    assert read.requests_topic == stack.environment()["WAYBILL_REQUESTS_TOPIC"]


def test_the_topics_of_a_stack_accept_messages(stack: Stack) -> None:
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": stack.environment()["KAFKA_BOOTSTRAP_SERVERS"]})
    for topic in TOPICS:
        producer.produce(stack.environment()[topic], b"{}", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(20) == 0
    assert errors == [None] * len(TOPICS)


def test_the_storage_of_a_stack_lists_its_objects(stack: Stack) -> None:
    assert stack.objects() == {}
    store(stack, "exports/a.csv", b"id\r\n")
    assert stack.objects() == {"exports/a.csv": 4}
    assert stack.read("exports/a.csv") == b"id\r\n"
    assert stack.uploads() == []


def test_the_emails_of_a_stack_are_those_since_it_began(servers: Servers, tmp_path: Path) -> None:
    for subject in ("first", "second"):
        folder = tmp_path / subject
        folder.mkdir()
        with servers.stack(folder) as stack:
            send_mail(stack, subject)
            assert subjects(stack, 1) == [subject]
            assert stack.mails()[0].recipient == "ada@example.test"


def test_two_stacks_share_nothing_but_their_servers(servers: Servers, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with servers.stack(folders[0]) as one, servers.stack(folders[1]) as two:
        assert not {one.environment()[name] for name in TOPICS} & {two.environment()[name] for name in TOPICS}

        store(one, "a", b"1")
        assert two.objects() == {}

        ask_clickhouse(one, "CREATE TABLE mine (id UInt8) ENGINE = MergeTree ORDER BY id")
        assert ask_clickhouse(one, "SELECT count() FROM system.tables WHERE database = currentDatabase()") == "1"
        assert ask_clickhouse(two, "SELECT count() FROM system.tables WHERE database = currentDatabase()") == "0"

        engines = [create_engine(settings.load(stack.environment()).database) for stack in (one, two)]
        with engines[0].begin() as connection:
            connection.execute(text("CREATE TABLE mine (id INTEGER)"))
        assert [inspect(engine).get_table_names() for engine in engines] == [["mine"], []]
        for engine in engines:
            engine.dispose()
