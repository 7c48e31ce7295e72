"""What every store promises, on a folder, on another fsspec filesystem, on moto, and on a real S3 server."""

import gc
import os
import random
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from pipeline.errors import Cancelled, Unavailable
from pipeline.storage import S3Options, Storage, open_storage
from tests import moto_server
from tests.services.s3 import S3, Bucket

PART = 5 << 20
KEY = "exports/1700000000000-lf-traces-export-p1-e1.csv"
SIZES = [0, 1, PART - 1, PART, PART + 1, 2 * PART, 7 * PART + 3]


@dataclass(frozen=True)
class Place:
    """A store under test, and an independent look into it."""

    storage: Storage
    objects: Callable[[], dict[str, int]]
    leftovers: Callable[[], list[str]]
    read: Callable[[str], bytes]


def s3_options(bucket: Bucket) -> S3Options:
    client = bucket.options()
    return S3Options(
        endpoint=bucket.endpoint,
        region=client["client_kwargs"]["region_name"],
        access_key_id=client["key"],
        secret_access_key=client["secret"],
        force_path_style=True,
        part_size=PART,
    )


def s3_place(bucket: Bucket) -> Place:
    storage = open_storage(f"s3://{bucket.name}", s3_options(bucket))
    return Place(storage, bucket.objects, bucket.uploads, bucket.read)


def folder_place(root: Path) -> Place:
    def files(*, hidden: bool) -> dict[str, int]:
        paths = [path for path in root.rglob("*") if path.is_file() and path.name.startswith(".") is hidden]
        return {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}

    return Place(
        open_storage(root.as_uri(), S3Options()),
        lambda: files(hidden=False),
        lambda: list(files(hidden=True)),
        lambda key: (root / key).read_bytes(),
    )


def memory_place(name: str) -> Place:
    fs = fsspec.filesystem("memory")

    def files(*, hidden: bool) -> dict[str, int]:
        found = {
            path.removeprefix(f"/{name}/"): info["size"] for path, info in fs.find(f"/{name}", detail=True).items()
        }
        return {path: size for path, size in found.items() if path.rpartition("/")[2].startswith(".") is hidden}

    return Place(
        open_storage(f"memory://{name}", S3Options()),
        lambda: files(hidden=False),
        lambda: list(files(hidden=True)),
        lambda key: bytes(fs.cat_file(f"/{name}/{key}")),
    )


PLACES = ["folder", "other", "moto", "real"]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    match request.param:
        case "folder":
            yield folder_place(tmp_path / "a folder")
        case "other":
            yield memory_place(tmp_path.name)
        case "moto":
            with moto_server.running() as moto:
                yield s3_place(moto.bucket)
        case _:
            with request.getfixturevalue("s3").bucket() as bucket:
                yield s3_place(bucket)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def pieces(data: bytes, size: int) -> Iterator[bytes | memoryview]:
    view = memoryview(data)
    for start in range(0, len(data), size):
        piece = view[start : start + size]
        yield bytes(piece) if start % 2 else piece


def fail(storage: Storage, data: bytes) -> None:
    with storage.open(KEY, "text/csv", 1) as upload:
        for part in pieces(data, 1_000_003):
            upload.write(part)
        raise ZeroDivisionError


def write_for_ever(storage: Storage) -> None:
    with storage.open(KEY, "text/csv", 1) as upload:
        upload.write(noise(2 * PART))
        threading.Thread(target=upload.interrupt).start()
        while True:
            upload.write(noise(1000))


def finish_interrupted(storage: Storage) -> None:
    with storage.open(KEY, "text/csv", 1) as upload:
        upload.write(noise(10))
        upload.interrupt()
        upload.finish()


def finish_late(storage: Storage) -> None:
    with storage.open(KEY, "text/csv", 1) as zombie:
        zombie.write(noise(PART))
        store(storage, noise(2 * PART), attempt=2)
        zombie.finish()


def store(storage: Storage, data: bytes, attempt: int = 1, piece: int = 1_000_003) -> int:
    with storage.open(KEY, "text/csv", attempt) as upload:
        for part in pieces(data, piece):
            upload.write(part)
        return upload.finish()


@pytest.mark.parametrize("size", SIZES)
def test_what_was_written_is_there_and_nothing_else(place: Place, size: int) -> None:
    assert store(place.storage, noise(size)) == size
    assert place.objects() == {KEY: size}
    assert place.read(KEY) == noise(size)
    assert place.storage.size(KEY) == size
    assert place.leftovers() == []


def test_a_piece_may_be_larger_than_many_parts(place: Place) -> None:
    store(place.storage, noise(4 * PART + 1), piece=100 * PART)
    assert place.read(KEY) == noise(4 * PART + 1)


@pytest.mark.parametrize("size", SIZES)
def test_an_error_leaves_nothing(place: Place, size: int) -> None:
    with pytest.raises(ZeroDivisionError):
        fail(place.storage, noise(size))
    assert (place.objects(), place.leftovers()) == ({}, [])


def test_leaving_without_finish_leaves_nothing(place: Place) -> None:
    with place.storage.open(KEY, "text/csv", 1) as upload:
        upload.write(noise(2 * PART))
    assert (place.objects(), place.leftovers()) == ({}, [])


def test_an_upload_that_was_dropped_is_never_committed(place: Place) -> None:
    upload = place.storage.open(KEY, "text/csv", 1)
    upload.write(noise(10))
    upload.abort()
    upload.abort()
    del upload
    gc.collect()
    assert (place.objects(), place.leftovers()) == ({}, [])


def test_nobody_sees_it_before_it_is_finished(place: Place) -> None:
    with place.storage.open(KEY, "text/csv", 1) as upload:
        upload.write(noise(3 * PART))
        assert place.objects() == {}
        assert place.storage.size(KEY) is None
        upload.finish()
    assert place.objects() == {KEY: 3 * PART}


def test_a_retry_takes_the_place_of_what_was_there(place: Place) -> None:
    store(place.storage, noise(2 * PART + 1))
    store(place.storage, noise(PART), attempt=2)
    assert place.read(KEY) == noise(PART)
    assert place.leftovers() == []


def test_a_failed_retry_leaves_what_was_there(place: Place) -> None:
    store(place.storage, noise(PART + 1))
    with place.storage.open(KEY, "text/csv", 2) as upload:
        upload.write(noise(2 * PART))
    assert place.read(KEY) == noise(PART + 1)
    assert place.leftovers() == []


def test_an_interrupted_upload_is_cancelled(place: Place) -> None:
    with pytest.raises(Cancelled):
        write_for_ever(place.storage)
    with pytest.raises(Cancelled):
        finish_interrupted(place.storage)
    assert (place.objects(), place.leftovers()) == ({}, [])


def test_put_delete_and_size(place: Place) -> None:
    place.storage.put("a/b.json", b"{}", "application/json")
    assert place.read("a/b.json") == b"{}"
    place.storage.put("a/b.json", b"[1]", "application/json")
    assert place.storage.size("a/b.json") == 3
    place.storage.delete("a/b.json")
    place.storage.delete("a/b.json")
    assert place.storage.size("a/b.json") is None
    assert place.objects() == {}


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/../x", "..", "a/./b", "", "/", "a\\b", "a\0b"])
def test_no_key_leads_elsewhere(place: Place, key: str) -> None:
    for call in (
        lambda: place.storage.open(key, "text/csv", 1),
        lambda: place.storage.put(key, b"x", "text/csv"),
        lambda: place.storage.delete(key),
        lambda: place.storage.size(key),
        lambda: place.storage.sign(key, timedelta(hours=1), "x", "text/csv"),
    ):
        with pytest.raises(ValueError, match="not a key"):
            call()


def test_a_prefix_may_begin_or_end_with_slashes(place: Place) -> None:
    place.storage.put("/a//b.json", b"{}", "application/json")
    assert place.objects() == {"a/b.json": 2}


def test_check_leaves_nothing(place: Place) -> None:
    place.storage.check()
    assert (place.objects(), place.leftovers()) == ({}, [])


# moto says that every upload began in 2010
@pytest.mark.parametrize("place", [name for name in PLACES if name != "moto"], indirect=True)
def test_uploads_that_nobody_ended_are_aborted_by_age_and_prefix(place: Place) -> None:
    ours = place.storage.open("exports/a.csv", "text/csv", 1)
    theirs = place.storage.open("elsewhere/b.csv", "text/csv", 1)
    for upload in (ours, theirs):
        upload.write(noise(PART))
    now = datetime.now(UTC)
    assert len(place.leftovers()) == 2
    assert place.storage.abort_uploads("exports/", now - timedelta(hours=1)) == 0
    assert place.storage.abort_uploads("exports/", now + timedelta(minutes=1)) == 1
    assert len(place.leftovers()) == 1
    ours.abort()
    theirs.abort()
    assert place.leftovers() == []


def test_a_folders_link_is_its_url(tmp_path: Path) -> None:
    place = folder_place(tmp_path)
    place.storage.put("a b.json", b"{}", "application/json")
    url = place.storage.sign("a b.json", timedelta(hours=1), "a b.json", "application/json")
    assert url == f"file://{tmp_path}/a%20b.json"


def test_partial_files_of_two_attempts_are_two_files(tmp_path: Path) -> None:
    place = folder_place(tmp_path)
    with place.storage.open(KEY, "text/csv", 1) as zombie, place.storage.open(KEY, "text/csv", 2) as successor:
        zombie.write(b"old")
        successor.write(b"newer")
        successor.finish()
    assert place.objects() == {KEY: 5}


def test_a_folder_that_cant_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = open_storage((tmp_path / "file" / "below").as_uri(), S3Options())
    with pytest.raises(Unavailable, match="Not a directory"):
        storage.check()


def test_a_full_disk_is_unavailable_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder_place(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Unavailable, match="No space left"):
        store(place.storage, noise(10))
    assert (place.objects(), place.leftovers()) == ({}, [])


@pytest.fixture(params=["moto", "real"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    if request.param == "moto":
        with moto_server.running() as moto:
            yield moto.bucket
    else:
        with request.getfixturevalue("s3").bucket() as bucket:
            yield bucket


def test_a_signed_link_downloads_the_file_under_its_name(bucket: Bucket) -> None:
    place = s3_place(bucket)
    store(place.storage, noise(PART + 1))
    url = place.storage.sign(KEY, timedelta(hours=2), f"{KEY}é\r\n", "text/csv; charset=utf-8")
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
def test_a_link_cant_outlive_its_signature(lifetime: timedelta) -> None:
    storage = open_storage("s3://bucket", S3Options(region="us-east-1", access_key_id="a", secret_access_key="b"))
    with pytest.raises(ValueError, match="up to 7 days"):
        storage.sign(KEY, lifetime, "a.csv", "text/csv")


def test_a_bucket_may_have_a_root(bucket: Bucket) -> None:
    storage = open_storage(f"s3://{bucket.name}/some/root/", s3_options(bucket))
    store(storage, noise(PART))
    assert bucket.objects() == {f"some/root/{KEY}": PART}
    assert storage.size(KEY) == PART


def test_the_object_carries_its_type_and_name(bucket: Bucket) -> None:
    for size in (10, PART + 1):
        store(s3_place(bucket).storage, noise(size))
        head = bucket.client.head_object(Bucket=bucket.name, Key=KEY)
        assert head["ContentType"] == "text/csv"
        assert head["ContentDisposition"] == f'attachment; filename="{KEY.rpartition("/")[2]}"'
        assert head["Metadata"] == {"waybill-attempt": "1"}


def test_a_zombie_cant_complete_over_its_successor(s3: S3) -> None:
    with s3.bucket() as bucket:
        place = s3_place(bucket)
        with pytest.raises(Unavailable):
            finish_late(place.storage)
        assert place.read(KEY) == noise(2 * PART)
        assert place.leftovers() == []


def test_a_missing_bucket_is_named(bucket: Bucket) -> None:
    storage = open_storage("s3://no-such-bucket-of-ours", s3_options(bucket))
    with pytest.raises(Unavailable, match="NoSuchBucket"):
        storage.check()
    with pytest.raises(Unavailable, match="NoSuchBucket"):
        store(storage, b"x")


def test_a_wrong_key_is_said(s3: S3) -> None:
    with s3.bucket() as bucket:
        options = S3Options(**{**s3_options(bucket).__dict__, "secret_access_key": "wrong"})
        with pytest.raises(Unavailable, match="SignatureDoesNotMatch"):
            open_storage(f"s3://{bucket.name}", options).check()
