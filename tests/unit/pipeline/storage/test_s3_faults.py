import socket
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest

from config.errors import Rejected, Unavailable
from pipeline.storage import S3Options, Storage, open_storage
from pipeline.storage.s3 import CHECK_RETRIES
from tests import moto_server
from tests.moto_server import Fault, Moto
from tests.support.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.slow

PART = 5 << 20
KEY = "a/b.csv"
DATA = bytes(range(256)) * ((3 * PART + 7) // 256 + 1)


@pytest.fixture
def moto() -> Iterator[Moto]:
    with moto_server.running() as running:
        yield running


@pytest.fixture
def outcomes() -> Counter[str]:
    return Counter()


@pytest.fixture
def storage(moto: Moto, outcomes: Counter[str]) -> Storage:
    options = S3Options(
        endpoint=moto.bucket.endpoint,
        region="us-east-1",
        access_key_id="a",
        secret_access_key="b",
        force_path_style=True,
        part_size=PART,
        pauses=(0.01,) * 4,
    )
    return open_storage(f"s3://{moto.bucket.name}", options, lambda outcome: outcomes.update([outcome]))


def store(storage: Storage, data: bytes = DATA, attempt: int = 1) -> int:
    with storage.open(KEY, "text/csv", attempt) as upload:
        for start in range(0, len(data), 1_000_000):
            upload.write(data[start : start + 1_000_000])
        return upload.finish()


def assert_nothing_is_left(moto: Moto) -> None:
    moto.door.faults.clear()
    assert (moto.bucket.objects(), moto.bucket.uploads()) == ({}, [])


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("503 Slow Down", b"SlowDown"),
        ("500 Internal Server Error", b"InternalError"),
        ("400 Bad Request", b"RequestTimeout"),
        ("429 Too Many Requests", b"TooManyRequests"),
    ],
)
def test_a_part_that_fails_in_passing_is_sent_again(
    moto: Moto, storage: Storage, outcomes: Counter[str], status: str, code: bytes
) -> None:
    moto.door.faults.append(Fault("PUT", "partNumber=2", status, code, times=4))
    assert store(storage) == len(DATA)
    assert moto.bucket.read(KEY) == DATA
    assert outcomes == {"stored": 4, "retried": 4}


def test_a_storm_passes(moto: Moto, storage: Storage) -> None:
    moto.door.faults += [Fault(method, "", times=4) for method in ("POST", "PUT", "HEAD")]
    store(storage)
    assert moto.bucket.read(KEY) == DATA


def test_a_check_says_soon_why_it_fails(moto: Moto, storage: Storage) -> None:
    moto.door.faults.append(Fault("POST", "uploads", "503 Slow Down", b"SlowDown", times=3))
    with pytest.raises(Unavailable, match="SlowDown"):
        storage.check("a/")
    storage.check("a/")


@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_a_part_that_fails_for_ever_fails_the_upload(
    moto: Moto, storage: Storage, outcomes: Counter[str], part: int
) -> None:
    moto.door.faults.append(Fault("PUT", f"partNumber={part}", times=1000))
    with pytest.raises(Unavailable, match="SlowDown"):
        store(storage)
    assert outcomes["failed"] == 1
    assert_nothing_is_left(moto)


@pytest.mark.parametrize(("method", "marker"), [("POST", "uploads"), ("POST", "uploadId"), ("PUT", "partNumber")])
def test_a_refusal_is_not_tried_again(moto: Moto, storage: Storage, method: str, marker: str) -> None:
    moto.door.faults.append(Fault(method, marker, "403 Forbidden", b"AccessDenied", times=1000))
    with pytest.raises(Unavailable, match="AccessDenied: made up by the test"):
        store(storage)
    queries = Counter(query for verb, query in moto.door.seen if verb == method and marker in query)
    assert set(queries.values()) == {1}
    assert_nothing_is_left(moto)


def test_a_store_that_redirects_after_it_has_read_a_part_is_named(moto: Moto, storage: Storage) -> None:
    moto.door.faults.append(Fault("PUT", "partNumber=1", "301 Moved Permanently", b"PermanentRedirect", times=99))
    with pytest.raises(Unavailable, match=r"S3 refused upload_part: PermanentRedirect.*_REGION and .*_ENDPOINT right"):
        store(storage)
    assert_nothing_is_left(moto)


def test_an_upload_that_completes_but_says_it_did_not_is_whole(moto: Moto, storage: Storage) -> None:
    moto.door.faults += [
        Fault("POST", "uploadId", "500 Internal Server Error", b"InternalError", after=True),
        Fault("POST", "uploadId", "404 Not Found", b"NoSuchUpload", skip=1),
    ]
    assert store(storage, attempt=3) == len(DATA)
    moto.door.faults.clear()
    assert moto.bucket.read(KEY) == DATA
    assert moto.bucket.uploads() == []


def test_an_upload_that_says_it_completed_but_did_not_fails(moto: Moto, storage: Storage) -> None:
    done = b"<CompleteMultipartUploadResult/>"
    moto.door.faults.append(Fault("POST", "uploadId", "200 OK", body=done))
    with pytest.raises(Unavailable, match="has no such object"):
        store(storage)


def test_a_store_without_conditions_gets_none_and_the_log_says_so_once(
    moto: Moto, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    moto.door.faults.append(Fault("PUT", "", "501 Not Implemented", b"NotImplemented"))
    assert (store(storage, b"small"), store(storage, b"other", attempt=2)) == (5, 5)
    assert moto.bucket.read(KEY) == b"other"
    assert len([each for each in caplog.messages if "no conditional put_object" in each]) == 1
    assert [query for method, query in moto.door.seen if method == "PUT"] == [""] * 3


def test_a_small_object_whose_answer_was_lost_is_known_for_ours(moto: Moto, storage: Storage) -> None:
    moto.door.faults.append(Fault("PUT", "", "500 Internal Server Error", b"InternalError", after=True))
    assert store(storage, b"small", attempt=2) == 5
    assert moto.bucket.read(KEY) == b"small"


def test_another_attempts_object_does_not_pass_for_ours(moto: Moto, storage: Storage) -> None:
    store(storage, attempt=1)
    moto.door.faults.append(Fault("POST", "uploadId", "500 Internal Server Error", b"InternalError", times=1000))
    with pytest.raises(Unavailable, match="InternalError"):
        store(storage, attempt=2)


def test_a_small_object_that_cant_be_put_is_not_there(moto: Moto, storage: Storage) -> None:
    moto.door.faults.append(Fault("PUT", "", times=1000))
    with pytest.raises(Unavailable, match="SlowDown"):
        store(storage, b"small")
    assert_nothing_is_left(moto)


def test_an_upload_that_cant_be_aborted_is_left_to_the_sweeper(
    moto: Moto, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    moto.door.faults += [
        Fault("PUT", "partNumber=2", "403 Forbidden", b"AccessDenied"),
        Fault("DELETE", "uploadId", times=1000),
    ]
    with pytest.raises(Unavailable, match="AccessDenied"):
        store(storage)
    assert "could not abort an upload" in caplog.messages
    assert moto.bucket.uploads() == [KEY]


def test_credentials_that_expired_are_asked_for_again(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    options = S3Options(
        endpoint=moto.bucket.endpoint, region="us-east-1", force_path_style=True, part_size=PART, pauses=(0.01,) * 4
    )
    moto.door.faults.append(Fault("PUT", "partNumber=2", "400 Bad Request", b"ExpiredToken"))
    store(open_storage(f"s3://{moto.bucket.name}", options))
    assert moto.bucket.read(KEY) == DATA


def test_fixed_credentials_that_expired_fail_at_once_in_words(moto: Moto, storage: Storage) -> None:
    moto.door.faults.append(Fault("PUT", "partNumber=2", "400 Bad Request", b"ExpiredToken", times=1000))
    with pytest.raises(Unavailable, match=r"ExpiredToken.*the credentials have expired"):
        store(storage)
    assert_nothing_is_left(moto)


def test_a_part_is_sent_again_to_a_store_that_refused_a_connection(moto: Moto, outcomes: Counter[str]) -> None:
    with tcp_proxy(int(moto.bucket.endpoint.rpartition(":")[2])) as line:
        deeds = {"stored": [line.refuse], "retried": [line.heal]}

        def act(outcome: str) -> None:
            outcomes[outcome] += 1
            if deeds[outcome]:
                deeds[outcome].pop()()

        options = S3Options(
            endpoint=f"http://127.0.0.1:{line.port}",
            region="us-east-1",
            access_key_id="a",
            secret_access_key="b",
            force_path_style=True,
            part_size=PART,
            parts_in_flight=1,
            pauses=(0.01,) * 4,
        )
        assert store(open_storage(f"s3://{moto.bucket.name}", options, act)) == len(DATA)
    assert moto.bucket.read(KEY) == DATA
    assert outcomes == {"stored": 4, "retried": 1}


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        options = S3Options(
            endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}",
            region="us-east-1",
            access_key_id="a",
            secret_access_key="b",
            pauses=(0.01,),
        )
        with pytest.raises(Unavailable, match="could not be reached"):
            open_storage("s3://bucket", options).check("")


def test_whoever_opens_a_link_does_not_wait_for_a_store_that_is_away(moto: Moto, storage: Storage) -> None:
    moto.door.faults.append(Fault("HEAD", "", times=1000))
    with pytest.raises(Unavailable):
        storage.size(KEY)
    assert len(moto.door.seen) == CHECK_RETRIES + 1
    moto.door.seen.clear()
    assert storage.sign(KEY, timedelta(hours=1), "b.csv", "text/csv").startswith(moto.bucket.endpoint)
    assert len(moto.door.seen) == CHECK_RETRIES + 1


def test_encryption_is_asked_for_on_every_object(moto: Moto) -> None:
    options = S3Options(
        endpoint=moto.bucket.endpoint,
        region="us-east-1",
        access_key_id="a",
        secret_access_key="b",
        force_path_style=True,
        part_size=PART,
        sse="aws:kms",
        sse_kms_key_id="key-1",
    )
    storage = open_storage(f"s3://{moto.bucket.name}", options)
    for data in (b"small", DATA):
        store(storage, data)
        head = moto.bucket.client.head_object(Bucket=moto.bucket.name, Key=KEY)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "key-1")


def test_secrets_stay_out_of_what_is_printed() -> None:
    assert "hunter2" not in repr(S3Options(secret_access_key="hunter2"))


@pytest.mark.parametrize("key", ["k" * 1025, "é" * 513, "a/" * 512 + "b"])
def test_a_key_that_s3_does_not_allow_is_rejected_before_anything_is_sent(storage: Storage, key: str) -> None:
    with pytest.raises(Rejected, match="bytes, and the store allows 1,024"):
        storage.open(key, "text/csv", 1)


def test_a_store_that_refuses_is_named_to_the_user_with_the_action_to_allow(moto: Moto, storage: Storage) -> None:
    moto.door.faults.append(Fault("PUT", "", "403 Forbidden", b"AccessDenied", times=9))

    with pytest.raises(Unavailable) as raised:
        store(storage, b"x")

    assert "the store refuses them (AccessDenied)" in str(raised.value.advice)
    assert f"must allow s3:PutObject on arn:aws:s3:::{moto.bucket.name}/a/*" in str(raised.value)
