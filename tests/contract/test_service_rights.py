"""The doctor names each right that a user of Kafka, S3 or ClickHouse lacks, and leaves nothing behind."""

import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._resource import ResourceType

from cli.checks import kafka as kafka_check
from cli.checks import storage as storage_check
from config.settings import load
from pipeline.read import check as clickhouse_check
from pipeline.read.connections import ClickHouse
from pipeline.storage import S3Options, open_storage
from tests.services import choice
from tests.services import kafka as kafka_service
from tests.services import s3 as s3_service
from tests.services.kafka import Kafka
from tests.services.s3 import S3
from tests.services.secured import allow
from tests.services.stacks import own_names
from tests.support.grants import minimal_policy

AUTHORIZER = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
"""
USER, SECRET = "exporter", "exporter-secret"


@pytest.fixture(scope="module")
def guarded_kafka(services_folder: Path) -> Iterator[Kafka]:
    if reason := choice.why_not("kafka"):
        pytest.skip(reason)
    with kafka_service.start(services_folder / "guarded-kafka", properties=AUTHORIZER) as running:
        yield running


def test_each_missing_acl_of_kafka_is_named_with_the_command_that_adds_it(guarded_kafka: Kafka) -> None:
    names = own_names()
    settings = load(guarded_kafka.environment() | names)
    topics = [settings.requests_topic, settings.completions_topic, settings.dead_letter_topic]
    guarded_kafka.create_topics(*topics)
    assert kafka_check.find_problems(settings) == []

    me, other = "User:ANONYMOUS", "User:other"
    allow(guarded_kafka, ResourceType.TOPIC, topics[0], me, AclOperation.READ)
    allow(guarded_kafka, ResourceType.TOPIC, topics[1], me, AclOperation.WRITE)
    allow(guarded_kafka, ResourceType.TOPIC, topics[2], other, AclOperation.READ)
    allow(guarded_kafka, ResourceType.GROUP, settings.notify_group, other, AclOperation.READ)
    problems = kafka_check.find_problems(settings)

    assert len(problems) == 4
    for kind, name, operation in (
        ("topic", topics[0], "Write"),
        ("topic", topics[1], "Read"),
        ("group", settings.notify_group, "Read"),
    ):
        command = f"kafka-acls.sh --add --allow-principal {me} --operation {operation} --{kind} {name}`"
        assert any(command in problem for problem in problems), (command, problems)
    assert any(f"may not see topic {topics[2]}" in problem for problem in problems)


@pytest.fixture(scope="module")
def guarded_s3(services_folder: Path) -> Iterator[S3]:
    if reason := choice.why_not("s3"):
        pytest.skip(reason)
    folder = services_folder / "guarded-s3"
    accounts = folder / "accounts"
    accounts.mkdir(parents=True)
    with s3_service.start(folder, options=["--iam-dir", accounts]) as running:
        running.create_user(USER, SECRET)
        yield running


def s3_problems(s3: S3, *, without: str | None = None) -> list[str]:
    """What the doctor finds with the documented policy, less one action."""
    prefix = f"{uuid.uuid4().hex}/"
    with s3.bucket() as bucket:
        policy = minimal_policy(bucket.name, prefix, USER, without=without)
        bucket.client.put_bucket_policy(Bucket=bucket.name, Policy=policy)
        options = S3Options(
            endpoint=s3.endpoint, region="us-east-1", access_key_id=USER, secret_access_key=SECRET,
            force_path_style=True, pauses=(),
        )  # fmt: skip
        report = storage_check.examine(open_storage(f"s3://{bucket.name}", options), prefix, ".waybill-doctor")
        if without is None:
            assert (bucket.objects(), bucket.uploads()) == ({}, [])
        bucket.client.delete_bucket_policy(Bucket=bucket.name)
    return list(report.problems)


def test_the_documented_policy_of_the_bucket_is_enough(guarded_s3: S3) -> None:
    assert s3_problems(guarded_s3) == []


@pytest.mark.parametrize(
    "action",
    [
        "s3:PutObject",
        "s3:GetObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
        "s3:ListBucketMultipartUploads",
    ],
)
def test_each_missing_action_of_the_policy_is_named(guarded_s3: S3, action: str) -> None:
    problems = s3_problems(guarded_s3, without=action)

    assert problems
    assert all(f"must allow {action}" in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("code", "text", "named"),
    [
        (
            497,
            "waybill: Not enough privileges. It's necessary to have the grant SELECT(id, name) ON default.traces.",
            "run `GRANT SELECT(id, name) ON default.traces`",
        ),
        (164, "Cannot modify 'max_execution_time' setting in readonly mode. (READONLY)", "set `readonly` to 2 or 0"),
        (516, "waybill: Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)", "CLICKHOUSE_PASSWORD"),
        (81, "Database nothing does not exist. (UNKNOWN_DATABASE)", "CLICKHOUSE_DB"),
        (
            60,
            "Unknown table expression identifier 'scores' in scope SELECT.",
            "the table scores is missing",
        ),
    ],
)
def test_each_refusal_of_clickhouse_is_a_sentence_with_its_remedy(code: int, text: str, named: str) -> None:
    body = f"Code: {code}. DB::Exception: {text} (version 25.8.1.1)".encode()

    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(500)
            self.send_header("X-ClickHouse-Exception-Code", str(code))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        (problem,) = clickhouse_check.find_problems(ClickHouse(f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()
    assert named in problem
    assert "DB::Exception" not in problem
