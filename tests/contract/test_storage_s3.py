"""What S3 stores add: links, headers, and uploads that concurrent attempts can't complete."""

import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from config.errors import Cancelled, Unavailable
from config.metrics import Metrics
from pipeline.export_file import open_file
from pipeline.progress import Progress
from pipeline.spec import read_spec
from pipeline.storage import S3Options, Storage, open_storage
from pipeline.types import FORMATS, OutputOptions
from tests import moto_server
from tests.contract.stores import KEY, PART, noise, s3_options, s3_store, upload_file
from tests.services.s3 import S3, Bucket
from tests.support.http_proxy import Forward, Response, http_proxy


@pytest.fixture(params=["moto", "real"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    if request.param == "moto":
        with moto_server.running() as moto:
            yield moto.bucket
    else:
        with request.getfixturevalue("s3").bucket() as bucket:
            yield bucket


def test_a_signed_link_downloads_the_file_under_its_name(bucket: Bucket) -> None:
    store = s3_store(bucket)
    upload_file(store.storage, noise(PART + 1))
    url = store.storage.sign(KEY, timedelta(hours=2), f"{KEY}é\r\n", "text/csv; charset=utf-8")
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == noise(PART + 1)
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        name = KEY.rpartition("/")[2]
        assert answer.headers["Content-Disposition"] == (
            f"attachment; filename=\"{name}_\"; filename*=UTF-8''{name}%C3%A9"
        )
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    assert query["X-Amz-Expires"] == ["7200"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]


def test_links_are_signed_for_the_external_endpoint(bucket: Bucket) -> None:
    inner = s3_options(bucket)
    outer = S3Options(**{**inner.__dict__, "external_endpoint": "https://files.example.com"})
    url = open_storage(f"s3://{bucket.name}", outer).sign(KEY, timedelta(days=7), "a.csv", "text/csv")
    assert url.startswith(f"https://files.example.com/{bucket.name}/{KEY}?")


@pytest.mark.parametrize("lifetime", [timedelta(days=7, seconds=1), timedelta(), timedelta(seconds=-1)])
def test_a_link_expires_with_its_signature_at_the_latest(lifetime: timedelta) -> None:
    storage = open_storage("s3://bucket", S3Options(region="us-east-1", access_key_id="a", secret_access_key="b"))
    with pytest.raises(ValueError, match="up to 7 days"):
        storage.sign(KEY, lifetime, "a.csv", "text/csv")


def test_a_bucket_may_have_a_root(bucket: Bucket) -> None:
    storage = open_storage(f"s3://{bucket.name}/some/root/", s3_options(bucket))
    upload_file(storage, noise(PART))
    assert bucket.objects() == {f"some/root/{KEY}": PART}
    assert storage.size(KEY) == PART


def test_the_object_has_its_content_type_and_name(bucket: Bucket) -> None:
    for size in (10, PART + 1):
        upload_file(s3_store(bucket).storage, noise(size))
        head = bucket.client.head_object(Bucket=bucket.name, Key=KEY)
        assert head["ContentType"] == "text/csv"
        assert head["ContentDisposition"] == f'attachment; filename="{KEY.rpartition("/")[2]}"'
        assert head["Metadata"] == {"waybill-attempt": "1"}


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/x-ndjson; charset=utf-8"])
def test_the_object_and_its_link_have_the_content_type_of_the_format(bucket: Bucket, content_type: str) -> None:
    assert content_type in [each.content_type for each in FORMATS.values()]
    storage = s3_store(bucket).storage
    with storage.open(KEY, content_type, 1) as upload:
        upload.write(b"{}")
        upload.finish()
    assert bucket.client.head_object(Bucket=bucket.name, Key=KEY)["ContentType"] == content_type
    with urllib.request.urlopen(storage.sign(KEY, timedelta(hours=1), "a.json", content_type)) as answer:
        assert answer.headers["Content-Type"] == content_type


def test_the_error_names_a_missing_bucket(bucket: Bucket) -> None:
    storage = open_storage("s3://no-such-bucket-of-ours", s3_options(bucket))
    with pytest.raises(Unavailable, match="NoSuchBucket"):
        storage.check("")
    with pytest.raises(Unavailable, match="NoSuchBucket"):
        upload_file(storage, b"x")


def test_the_error_names_a_wrong_key(s3: S3) -> None:
    with s3.bucket() as bucket:
        options = S3Options(**{**s3_options(bucket).__dict__, "secret_access_key": "wrong"})
        with pytest.raises(Unavailable, match="SignatureDoesNotMatch"):
            open_storage(f"s3://{bucket.name}", options).check("")


def store_both(storage: Storage, attempt: int, fence: Callable[[], None], manifest: Callable[[], bytes]) -> str:
    query: dict[str, Any] = {"tableName": "traces", "filter": [], "orderBy": None}
    spec = read_spec(
        project_id="p",
        export_id="e",
        attempt=attempt,
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
        query=query,
        format="CSV",
        output=OutputOptions(),
    )
    with open_file(spec, storage, Progress(), Metrics(CollectorRegistry())) as file:
        file.write(b"the same bytes")
        file.commit(manifest, fence)
    return spec.key


def test_an_attempt_that_lost_its_lease_keeps_the_equal_file_of_the_next_one(bucket: Bucket) -> None:
    """The next attempt stores its file after the first one has read the head of its own, with the same ETag."""
    direct = s3_store(bucket).storage
    calls = iter([True, False])
    stored = []

    def fence() -> None:
        if not next(calls):
            raise Cancelled

    def stop() -> bytes:
        raise Cancelled

    def overtake(forward: Forward) -> Response:
        stored.append(store_both(direct, 2, lambda: None, lambda: b"{}"))
        return forward()

    with http_proxy(bucket.endpoint) as proxy:
        proxy.add(lambda request: request.method == "DELETE", overtake)
        late = open_storage(f"s3://{bucket.name}", replace(s3_options(bucket), endpoint=proxy.url))
        with pytest.raises(Cancelled):
            store_both(late, 1, fence, stop)
    if not stored:
        stored.append(store_both(direct, 2, lambda: None, lambda: b"{}"))

    assert sorted(bucket.objects()) == [stored[0], f"{stored[0]}.manifest.json"]
