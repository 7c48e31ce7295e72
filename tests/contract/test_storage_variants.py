"""What differs between the stores that speak S3, by fakes that refuse what those stores refuse."""

import json
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from cli.checks.storage import Report, examine
from config.errors import Unavailable
from pipeline.storage import Storage, open_storage, s3_parts
from pipeline.storage.s3 import FIXED_SESSION
from tests import moto_server
from tests.contract import store_fakes
from tests.contract.store_fakes import faked, read_query
from tests.contract.stores import (
    KEY,
    PART,
    VIRTUAL_DOMAIN,
    fake_store,
    noise,
    resolving,
    s3_options,
    s3_store,
    unsigned_fake_store,
    upload_file,
)
from tests.services.s3 import S3, Bucket
from tests.support.certificates import make_authority
from tests.support.http_proxy import HttpProxy, Request, http_proxy
from tests.support.responses import refuse, reply

PREFIX = "exports/"
HOUR = timedelta(hours=1)


@pytest.fixture
def bucket(s3: S3) -> Iterator[Bucket]:
    with s3.bucket() as made:
        yield made


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without credentials or settings of AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def diagnose(storage: Storage) -> Report:
    return examine(storage, PREFIX, ".waybill-doctor")


def record(proxy: HttpProxy) -> list[Request]:
    """Return a list to which each request is added from now on."""
    seen: list[Request] = []

    def note(request: Request) -> bool:
        seen.append(request)
        return False

    proxy.add(note, refuse(500, "InternalError"))
    return seen


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query)


# parts


def test_a_file_that_outgrows_equal_parts_is_stored_by_the_next_attempt(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_parts, "EVEN_PARTS", 2)
    data = noise(6 * PART)
    with fake_store(bucket, "r2") as store:
        with pytest.raises(Unavailable, match="InvalidPart"):
            upload_file(store.storage, data)
        with store.storage.open(KEY, "text/csv", 2, len(data)) as upload:
            upload.write(data)
            assert upload.finish() == len(data)
    assert bucket.read(KEY) == data


def test_an_upload_of_too_many_parts_fails_before_the_store_refuses_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.s3_upload.MAX_PARTS", 2)
    storage = s3_store(bucket).storage
    with pytest.raises(Unavailable, match="more than 2 parts; the next attempt uses larger ones"):
        upload_file(storage, noise(3 * PART))
    assert (bucket.objects(), bucket.uploads()) == ({}, [])


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_part_is_sent_as_often_as_the_setting_says(bucket: Bucket, attempts: int) -> None:
    with http_proxy(bucket.endpoint) as proxy:
        rule = proxy.add(lambda request: read_query(request).get("partNumber") == "2", refuse(503, "SlowDown"))
        storage = s3_store(bucket, endpoint=proxy.url, part_attempts=attempts, pauses=(0.01,)).storage
        with pytest.raises(Unavailable, match="SlowDown"):
            upload_file(storage, noise(3 * PART))
    assert rule.done == attempts


# rights


def test_the_check_writes_under_the_prefix(bucket: Bucket) -> None:
    with faked(bucket.endpoint, bucket.name, store_fakes.prefix_policy(PREFIX)) as proxy:
        storage = s3_store(bucket, endpoint=proxy.url).storage
        storage.check(PREFIX)
        report = diagnose(storage)
    assert report == Report(())
    assert bucket.objects() == {}


def test_without_the_right_to_list_a_missing_object_has_no_size(bucket: Bucket) -> None:
    with fake_store(bucket, "no-listing") as store:
        assert store.storage.size(KEY) is None
        upload_file(store.storage, noise(PART + 1))
        assert store.storage.size(KEY) == PART + 1
        report = diagnose(store.storage)
    assert report.problems == ()
    assert [f"allow s3:ListBucket on arn:aws:s3:::{bucket.name}" in each for each in report.weaknesses] == [True]


def test_a_store_that_shows_no_object_is_named_with_the_missing_right(bucket: Bucket) -> None:
    with http_proxy(bucket.endpoint) as proxy:
        proxy.add(
            lambda request: request.method in {"GET", "HEAD"} and "." in request.path, refuse(403, "AccessDenied")
        )
        storage = s3_store(bucket, endpoint=proxy.url).storage
        with pytest.raises(Unavailable, match="must allow s3:GetObject"):
            upload_file(storage, noise(PART + 1))
        report = diagnose(storage)
    assert any("must allow s3:GetObject" in each for each in report.problems)


# checksums


def test_a_checksum_is_sent_only_to_a_store_that_asks_for_it(bucket: Bucket) -> None:
    with http_proxy(bucket.endpoint) as proxy:
        seen = record(proxy)
        storage = s3_store(bucket, endpoint=proxy.url, parts_in_flight=1).storage
        upload_file(storage, noise(PART + 1))
        assert not any("Content-MD5" in request.headers for request in seen)
        store_fakes.object_lock(proxy, bucket.name)
        seen.clear()
        upload_file(storage, noise(2 * PART + 1), attempt=2)
    parts = [(read_query(each)["partNumber"], "Content-MD5" in each.headers) for each in seen if each.method == "PUT"]
    assert parts == [("1", False), ("1", True), ("2", True), ("3", True)]
    assert bucket.read(KEY) == noise(2 * PART + 1)


def test_a_refusal_for_another_reason_is_not_answered_with_a_checksum(bucket: Bucket) -> None:
    with http_proxy(bucket.endpoint) as proxy:
        rule = proxy.add(lambda request: request.method == "PUT", refuse(400, "EntityTooLarge"))
        with pytest.raises(Unavailable, match="EntityTooLarge"):
            upload_file(s3_store(bucket, endpoint=proxy.url).storage, b"x")
    assert rule.done == 1


# conditions


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        ("no-conditions", ["no conditional complete_multipart_upload", "no conditional put_object"]),
        ("bad-conditions", ["no conditional complete_multipart_upload", "no conditional put_object"]),
        ("wrong-answers", ["no conditional complete_multipart_upload", "no conditional put_object"]),
        ("no-metadata", ["drops the metadata"]),
        ("object-lock", []),
        ("r2", []),
    ],
)
def test_the_doctor_names_each_guarantee_that_a_store_does_not_give(
    bucket: Bucket, name: str, sentences: list[str]
) -> None:
    with fake_store(bucket, name) as store:
        report = diagnose(store.storage)
    assert report.problems == ()
    assert len(report.weaknesses) == len(sentences), report
    for sentence in sentences:
        assert any(sentence in each for each in report.weaknesses), report
    assert (bucket.objects(), bucket.uploads()) == ({}, [])


def test_the_doctor_names_conditions_that_a_store_ignores() -> None:
    with unsigned_fake_store("ignored-conditions") as store:
        report = diagnose(store.storage)
        assert store.objects() == {}
    assert report.problems == ()
    for method in ("put_object", "complete_multipart_upload"):
        assert any(f"ignores the condition of {method}" in each for each in report.weaknesses), report


@pytest.mark.parametrize("name", ["no-conditions", "bad-conditions"])
def test_refused_conditions_are_found_at_the_start(bucket: Bucket, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with fake_store(bucket, name) as store:
        store.storage.check(PREFIX)
        store.storage.check(PREFIX)
    assert sorted(message.partition(":")[0] for message in caplog.messages) == [
        "the store has no conditional complete_multipart_upload",
        "the store has no conditional put_object",
    ]


def test_ignored_conditions_are_found_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with unsigned_fake_store("ignored-conditions") as store:
        store.storage.check(PREFIX)
        store.storage.check(PREFIX)
        assert store.objects() == {}
    assert sorted(message.partition(":")[0] for message in caplog.messages if "store" in message) == [
        "the store ignores the condition of complete_multipart_upload",
        "the store ignores the condition of put_object",
    ]


def test_the_conditions_of_a_real_store_are_found_to_be_kept(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    with http_proxy(bucket.endpoint) as proxy:
        storage = s3_store(bucket, endpoint=proxy.url).storage
        storage.check(PREFIX)
        seen = record(proxy)
        upload_file(storage, b"x")
    assert [request.method for request in seen] == ["HEAD", "PUT"]
    assert caplog.messages == []
    assert list(bucket.objects()) == [KEY]


# addresses


def test_the_bucket_is_in_the_host_name_unless_the_path_is_asked_for(bucket: Bucket) -> None:
    with http_proxy(bucket.endpoint) as proxy, resolving(VIRTUAL_DOMAIN):
        seen = record(proxy)
        proxy.add(lambda _: True, refuse(404, "NoSuchKey"))
        named = proxy.url.replace("127.0.0.1", VIRTUAL_DOMAIN)
        for endpoint, style in ((named, False), (named, True), (proxy.url, False)):
            assert s3_store(bucket, endpoint=endpoint, force_path_style=style).storage.size(KEY) is None
    port = urlsplit(proxy.url).port
    hosts = [request.headers["Host"] for request in seen]
    assert hosts == [f"{bucket.name}.{VIRTUAL_DOMAIN}:{port}", f"{VIRTUAL_DOMAIN}:{port}", f"127.0.0.1:{port}"]


def test_a_bucket_that_has_no_host_name_is_reported_with_the_setting_to_look_at(bucket: Bucket) -> None:
    storage = s3_store(bucket, endpoint="http://minio.invalid:9000", force_path_style=False, pauses=()).storage
    with pytest.raises(Unavailable, match=r"can't be resolved.*LANGFUSE_S3_BATCH_EXPORT_FORCE_PATH_STYLE=true\?"):
        storage.check(PREFIX)


# regions


@pytest.mark.parametrize("region", [None, "us-east-1", "eu-central-1"])
@pytest.mark.parametrize("external", [None, "https://files.example.com"])
def test_links_are_signed_for_the_region_of_the_bucket(
    no_credentials: pytest.MonkeyPatch, region: str | None, external: str | None
) -> None:
    no_credentials.setenv("AWS_DEFAULT_REGION", "us-west-2")
    with (
        moto_server.running() as moto,
        faked(moto.bucket.endpoint, moto.bucket.name, store_fakes.in_region("eu-central-1")) as proxy,
    ):
        store = s3_store(moto.bucket, endpoint=proxy.url, region=region, external_endpoint=external)
        url = store.storage.sign(KEY, HOUR, "a.csv", "text/csv")
        assert query_of(url)["X-Amz-Credential"][0].split("/")[2] == "eu-central-1"
        upload_file(store.storage, b"x")
        if external is None:
            with urllib.request.urlopen(url) as answer:
                assert answer.read() == b"x"


def test_a_link_is_signed_for_the_region_of_the_settings_while_the_store_does_not_answer(bucket: Bucket) -> None:
    with http_proxy(bucket.endpoint) as proxy:
        outage = proxy.add(lambda _: True, refuse(503, "SlowDown"))
        storage = s3_store(bucket, endpoint=proxy.url, region="eu-west-3", pauses=()).storage
        assert "eu-west-3" in storage.sign(KEY, HOUR, "a.csv", "text/csv")
        assert outage.done


# credentials and certificates


@pytest.mark.parametrize(("left", "expected"), [(timedelta(minutes=40), 40 * 60), (timedelta(days=2), 24 * 60 * 60)])
def test_a_link_ends_with_the_credentials_of_the_role_that_signs_it(
    bucket: Bucket, no_credentials: pytest.MonkeyPatch, left: timedelta, expected: int
) -> None:
    credentials = bucket.options()
    role = {
        "AccessKeyId": credentials["key"],
        "SecretAccessKey": credentials["secret"],
        "Token": "of-the-session",
        "Expiration": f"{datetime.now(UTC) + left:%Y-%m-%dT%H:%M:%SZ}",
    }
    options = replace(s3_options(bucket), access_key_id=None, secret_access_key=None)
    with http_proxy("127.0.0.1:9") as proxy:
        proxy.add(lambda _: True, reply(200, json.dumps(role).encode()))
        no_credentials.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{proxy.url}/role")
        url = open_storage(f"s3://{bucket.name}", options).sign(KEY, timedelta(hours=24), "a.csv", "text/csv")
    assert expected - 30 <= int(query_of(url)["X-Amz-Expires"][0]) <= expected
    assert query_of(url)["X-Amz-Security-Token"] == ["of-the-session"]


def set_session(environment: pytest.MonkeyPatch) -> None:
    """Give the process the keys of a session, as `aws sts assume-role` prints them."""
    for name, value in {"ACCESS_KEY_ID": "ASIA", "SECRET_ACCESS_KEY": "s", "SESSION_TOKEN": "of-the-session"}.items():
        environment.setenv(f"AWS_{name}", value)


def test_a_session_whose_end_is_not_known_is_reported(
    no_credentials: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_session(no_credentials)
    with moto_server.running() as moto:
        storage = s3_store(moto.bucket, access_key_id=None, secret_access_key=None).storage
        report = diagnose(storage)
        storage.check(PREFIX)
        url = storage.sign(KEY, timedelta(hours=24), "a.csv", "text/csv")

    assert (report.problems, FIXED_SESSION in report.weaknesses) == ((), True)
    assert [record.getMessage() for record in caplog.records].count(FIXED_SESSION) == 1
    assert query_of(url)["X-Amz-Expires"] == ["86400"]


def test_a_session_whose_end_is_known_signs_links_until_then(no_credentials: pytest.MonkeyPatch) -> None:
    set_session(no_credentials)
    no_credentials.setenv("AWS_CREDENTIAL_EXPIRATION", f"{datetime.now(UTC) + HOUR:%Y-%m-%dT%H:%M:%SZ}")
    with moto_server.running() as moto:
        storage = s3_store(moto.bucket, access_key_id=None, secret_access_key=None).storage
        report = diagnose(storage)
        url = storage.sign(KEY, timedelta(hours=24), "a.csv", "text/csv")

    assert (report.problems, FIXED_SESSION in report.weaknesses) == ((), False)
    assert int(query_of(url)["X-Amz-Expires"][0]) <= HOUR.total_seconds()


def test_a_private_authority_is_trusted_by_ssl_cert_file(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make_authority(tmp_path)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with http_proxy(bucket.endpoint, authority.server_context()) as proxy:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(Unavailable, match=r"is not trusted.*in the file that SSL_CERT_FILE names\?"):
            # A retry would wait for longer than a call may take.
            s3_store(bucket, endpoint=proxy.url, pauses=(3600.0,)).storage.check(PREFIX)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        storage = s3_store(bucket, endpoint=proxy.url).storage
        assert diagnose(storage) == Report(())
        upload_file(storage, noise(PART + 1))
    assert bucket.read(KEY) == noise(PART + 1)
