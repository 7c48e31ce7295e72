"""The real services behave as the other tests need."""

import signal
import smtplib
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from email.message import EmailMessage
from typing import TypeVar

import psutil
import pytest
import s3fs
from confluent_kafka import Consumer, KafkaException, Message, Producer
from sqlalchemy import create_engine, make_url, text

from notify.smtp_login import log_in
from tests.services.kafka import Kafka
from tests.services.mail import Mail
from tests.services.postgres import Postgres
from tests.services.s3 import S3
from tests.services.smtp import Smtp

T = TypeVar("T")
MIB = 1024 * 1024


def eventually(found: Callable[[], T | None], seconds: float = 20) -> T:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


def consume(kafka: Kafka, topic: str) -> Message:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": f"group-of-{topic}",
            "auto.offset.reset": "earliest",
            "fetch.message.max.bytes": 16 * MIB,
        }
    )
    consumer.subscribe([topic])
    try:
        return eventually(lambda: consumer.poll(0.2))
    finally:
        consumer.close()


def produce(kafka: Kafka, topic: str, value: bytes) -> list[object]:
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "message.max.bytes": 16 * MIB})
    producer.produce(topic, value, key=b"key", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(20) == 0
    return errors


CRASHING = """
import os, signal, sys
from importlib import import_module
from tests.services.process import folder
kept = folder()
path = kept.__enter__()
running = import_module(f"tests.services.{sys.argv[1]}").start(path / "service")
print(path, running.__enter__().pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("service", ["kafka", "postgres", "s3", "smtp"])
def test_a_server_ends_with_the_run_that_started_it(request: pytest.FixtureRequest, service: str) -> None:
    request.getfixturevalue(service)  # skips if it cannot run
    crashed = subprocess.run([sys.executable, "-c", CRASHING, service], capture_output=True, text=True, check=False)
    assert crashed.returncode == -signal.SIGKILL, crashed.stderr
    path, _ = crashed.stdout.split()
    eventually(lambda: not [each for each in psutil.process_iter(["cmdline"]) if path in str(each.info["cmdline"])])


def test_a_message_of_ten_megabytes_goes_through_kafka(kafka: Kafka) -> None:
    topic, value = f"topic-{uuid.uuid4().hex}", b"x" * (10 * MIB)
    kafka.create_topics(topic)
    assert produce(kafka, topic, value) == [None]
    message = consume(kafka, topic)
    assert (message.error(), message.key(), message.value()) == (None, b"key", value)


def test_kafka_creates_no_topic_by_itself(kafka: Kafka) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    with pytest.raises(KafkaException, match="UNKNOWN_TOPIC_OR_PART"):
        raise KafkaException(producer.list_topics("nobody-made-it", timeout=20).topics["nobody-made-it"].error)


def test_topics_can_be_created_twice(kafka: Kafka) -> None:
    topic = f"topic-{uuid.uuid4().hex}"
    kafka.create_topics(topic)
    kafka.create_topics(topic)


def test_every_database_of_postgres_starts_empty(postgres: Postgres) -> None:
    count = text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    for _ in range(2):
        with postgres.database() as database:
            engine = create_engine(make_url(database.url).set(drivername="postgresql+psycopg"))
            with engine.begin() as connection:
                assert connection.execute(count).scalar_one() == 0
                connection.execute(text("CREATE TABLE left_behind (id integer)"))
                assert connection.execute(count).scalar_one() == 1
            engine.dispose()


def test_a_multipart_upload_to_s3_is_open_then_aborted_or_complete(s3: S3) -> None:
    with s3.bucket() as bucket:
        files = s3fs.S3FileSystem(**bucket.options(), skip_instance_cache=True)
        open_kwargs = {"mode": "wb", "block_size": 5 * MIB, "autocommit": False}

        dropped = files.open(f"{bucket.name}/a/dropped.bin", **open_kwargs)
        dropped.write(b"x" * (6 * MIB))
        assert bucket.uploads() == ["a/dropped.bin"]
        dropped.close()
        dropped.discard()
        assert bucket.uploads() == []
        assert bucket.objects() == {}

        content = b"0123456789abcdef" * (12 * MIB // 16)
        kept = files.open(f"{bucket.name}/a/kept.bin", **open_kwargs)
        kept.write(content)
        kept.close()
        kept.commit()
        assert bucket.uploads() == []
        assert bucket.objects() == {"a/kept.bin": len(content)}
        assert bucket.read("a/kept.bin") == content


def letter(recipient: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "exports@waybill.test", recipient, "Grüße · 你好"
    message.set_content("first line\n.dot\n你好\n")
    return message


def test_an_email_is_delivered_as_it_was_sent(smtp: Smtp) -> None:
    recipient = f"{uuid.uuid4().hex}@example.test"
    with smtplib.SMTP("127.0.0.1", smtp.port, timeout=20) as client:
        log_in(client, "waybill", "mail-pässwort")
        client.send_message(letter(recipient))

    def delivered() -> list[Mail]:
        return [mail for mail in smtp.mailbox.mails() if mail.recipient == recipient]

    message = eventually(delivered)[0].message
    assert message["Subject"] == "Grüße · 你好"
    assert message.get_content() == "first line\n.dot\n你好\n"


@pytest.mark.parametrize(("local_part", "code"), [("refused", 550), ("later", 451)])
def test_the_smtp_server_refuses_or_defers_on_request(smtp: Smtp, local_part: str, code: int) -> None:
    recipient = f"{local_part}@example.test"
    with (
        smtplib.SMTP("127.0.0.1", smtp.port, timeout=20) as client,
        pytest.raises(smtplib.SMTPRecipientsRefused) as refusal,
    ):
        client.send_message(letter(recipient))
    assert refusal.value.recipients[recipient][0] == code


def test_a_wrong_password_is_refused_by_the_smtp_server(smtp: Smtp) -> None:
    with (
        smtplib.SMTP("127.0.0.1", smtp.port, timeout=20) as client,
        pytest.raises(smtplib.SMTPAuthenticationError),
    ):
        client.login("waybill", "wrong")
