"""The contract of every store: a folder, another fsspec filesystem, moto, a real S3 server, and two emulators."""

import errno
import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.errors import Cancelled, Unavailable
from pipeline.storage import S3Options, Storage, open_storage
from pipeline.storage.types import Upload
from tests import moto_server
from tests.contract.stores import (
    FAKES,
    KEY,
    PART,
    UNSIGNED_FAKES,
    VIRTUAL_DOMAIN,
    Store,
    azure_store,
    fake_store,
    folder_store,
    gcs_store,
    memory_store,
    noise,
    pieces,
    s3_store,
    unsigned_fake_store,
    upload_file,
    virtual_store,
)
from tests.services import choice
from tests.services import s3 as s3_service
from tests.services.s3 import S3

SIZES = [0, 1, PART - 1, PART, PART + 1, 2 * PART, 7 * PART + 3]
FAKED = [pytest.param(name, marks=pytest.mark.slow) for name in (*FAKES, *UNSIGNED_FAKES, "virtual-hosts")]
STORES = ["folder", "other", "moto", "real", "azure", "gcs"]
SIZED = [
    *(pytest.param(name, size) for name in STORES for size in SIZES),
    *(pytest.param(name.values[0], size, marks=pytest.mark.slow) for name in FAKED for size in (1, 2 * PART + 1)),
]
STORES_WITH_ATTEMPTS = [
    *(name for name in STORES if name != "other"),
    *(param for param in FAKED if param.values != ("no-metadata",)),
]


@pytest.fixture(scope="module")
def virtual_s3(services_folder: Path) -> Iterator[S3]:
    """A server that has a name for each bucket."""
    if reason := choice.why_not("s3"):
        pytest.skip(reason)
    with s3_service.start(services_folder / "virtual-s3", options=["--virtual-domain", VIRTUAL_DOMAIN]) as running:
        yield running


@pytest.fixture(params=[*STORES, *FAKED])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    match request.param:
        case "folder":
            yield folder_store(tmp_path / "a folder")
        case "other":
            yield memory_store(tmp_path.name)
        case "moto":
            with moto_server.running() as moto:
                yield s3_store(moto.bucket)
        case "azure":
            with request.getfixturevalue("azure").bucket() as container:
                yield azure_store(container)
        case "gcs":
            with request.getfixturevalue("gcs").bucket() as bucket:
                yield gcs_store(bucket)
        case "virtual-hosts":
            with request.getfixturevalue("virtual_s3").bucket() as bucket, virtual_store(bucket) as fake:
                yield fake
        case name if name in UNSIGNED_FAKES:
            with unsigned_fake_store(name) as fake:
                yield fake
        case name if name in FAKES:
            with request.getfixturevalue("s3").bucket() as bucket, fake_store(bucket, name) as fake:
                yield fake
        case _:
            with request.getfixturevalue("s3").bucket() as bucket:
                yield s3_store(bucket)


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


@pytest.mark.parametrize(("store", "size"), SIZED, indirect=["store"])
def test_a_finished_upload_has_the_written_bytes_and_leaves_nothing_else(store: Store, size: int) -> None:
    assert upload_file(store.storage, noise(size)) == size
    assert store.objects() == {KEY: size}
    assert store.read(KEY) == noise(size)
    assert store.storage.size(KEY) == size
    assert store.partial_files() == []


def test_a_piece_may_be_larger_than_many_parts(store: Store) -> None:
    upload_file(store.storage, noise(4 * PART + 1), piece=100 * PART)
    assert store.read(KEY) == noise(4 * PART + 1)


@pytest.mark.parametrize(("store", "size"), SIZED, indirect=["store"])
def test_an_error_during_an_upload_leaves_nothing(store: Store, size: int) -> None:
    with pytest.raises(ZeroDivisionError):
        fail(store.storage, noise(size))
    assert (store.objects(), store.partial_files()) == ({}, [])


def test_an_upload_that_was_not_finished_leaves_nothing(store: Store) -> None:
    with store.storage.open(KEY, "text/csv", 1) as upload:
        upload.write(noise(2 * PART))
    assert (store.objects(), store.partial_files()) == ({}, [])


def test_an_aborted_upload_is_never_committed(store: Store) -> None:
    upload = store.storage.open(KEY, "text/csv", 1)
    upload.__enter__()
    upload.write(noise(10))
    upload.abort()
    upload.abort()
    del upload
    gc.collect()
    assert (store.objects(), store.partial_files()) == ({}, [])


def test_a_file_is_not_visible_before_it_is_finished(store: Store) -> None:
    with store.storage.open(KEY, "text/csv", 1) as upload:
        upload.write(noise(3 * PART))
        assert store.objects() == {}
        assert store.storage.size(KEY) is None
        upload.finish()
    assert store.objects() == {KEY: 3 * PART}


def test_a_retry_replaces_the_file_of_the_attempt_before(store: Store) -> None:
    upload_file(store.storage, noise(2 * PART + 1))
    upload_file(store.storage, noise(PART), attempt=2)
    assert store.read(KEY) == noise(PART)
    assert store.partial_files() == []


def test_a_failed_retry_keeps_the_file_of_the_attempt_before(store: Store) -> None:
    upload_file(store.storage, noise(PART + 1))
    with store.storage.open(KEY, "text/csv", 2) as upload:
        upload.write(noise(2 * PART))
    assert store.read(KEY) == noise(PART + 1)
    assert store.partial_files() == []


def test_an_interrupted_upload_is_cancelled(store: Store) -> None:
    with pytest.raises(Cancelled):
        write_for_ever(store.storage)
    with pytest.raises(Cancelled):
        finish_interrupted(store.storage)
    assert (store.objects(), store.partial_files()) == ({}, [])


def test_a_file_is_deleted_and_then_has_no_size(store: Store) -> None:
    upload_file(store.storage, noise(3), key="a/b.csv")
    assert store.storage.size("a/b.csv") == 3
    store.storage.delete("a/b.csv", 1)
    store.storage.delete("a/b.csv", 1)
    assert store.storage.size("a/b.csv") is None
    assert store.objects() == {}


@pytest.mark.parametrize("store", STORES_WITH_ATTEMPTS, indirect=True)
def test_an_earlier_attempt_does_not_delete_the_file_of_a_later_one(store: Store) -> None:
    for data in (noise(1), noise(PART + 1)):
        upload_file(store.storage, data, attempt=3)
        store.storage.delete(KEY, 2)
        assert store.read(KEY) == data
        store.storage.delete(KEY, 3)
        assert store.objects() == {}


def settle(upload: Upload) -> None:
    """Wait until nothing is being sent."""
    in_flight = getattr(upload, "_in_flight", None) or ()
    wait([in_flight] if isinstance(in_flight, Future) else in_flight)


def overtaken(store: Store, size: int) -> None:
    """Finish one attempt after another one has finished during it."""
    with store.storage.open(KEY, "text/csv", 1) as late:
        late.write(noise(size))
        settle(late)
        upload_file(store.storage, b"the winner's", attempt=2)
        late.finish()


@pytest.mark.parametrize(("before", "size"), [(0, 5), (0, 2 * PART), (7, 5), (7, 2 * PART)])
def test_an_overtaken_attempt_changes_nothing(store: Store, before: int, size: int) -> None:
    if before:
        upload_file(store.storage, noise(before), attempt=1)
    with pytest.raises(Unavailable, match="another attempt has written"):
        overtaken(store, size)
    assert store.read(KEY) == b"the winner's"
    assert store.partial_files() == []


def test_an_attempt_does_not_restore_a_file_that_was_deleted_during_it(store: Store) -> None:
    upload_file(store.storage, b"old")
    with store.storage.open(KEY, "text/csv", 2) as upload:
        upload.write(b"new")
        store.storage.delete(KEY, 1)
        with pytest.raises(Unavailable):
            upload.finish()
    assert (store.objects(), store.partial_files()) == ({}, [])


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/../x", "..", "a/./b", "", "/", "a\\b", "a\0b"])
def test_keys_that_leave_the_prefix_are_refused(store: Store, key: str) -> None:
    for call in (
        lambda: store.storage.open(key, "text/csv", 1),
        lambda: store.storage.delete(key, 1),
        lambda: store.storage.size(key),
        lambda: store.storage.sign(key, timedelta(hours=1), "x", "text/csv"),
    ):
        with pytest.raises(ValueError, match="not a key"):
            call()


def test_a_prefix_may_begin_or_end_with_slashes(store: Store) -> None:
    upload_file(store.storage, b"{}", key="/a//b.json")
    assert store.objects() == {"a/b.json": 2}


def test_the_check_of_a_store_leaves_nothing(store: Store) -> None:
    store.storage.check("")
    assert (store.objects(), store.partial_files()) == ({}, [])


# moto reports that every upload began in 2010, and Google does not list unfinished uploads
@pytest.mark.parametrize("store", [name for name in STORES if name not in {"moto", "gcs"}], indirect=True)
def test_orphaned_uploads_are_aborted_by_age_and_prefix(store: Store) -> None:
    ours = store.storage.open("exports/a.csv", "text/csv", 1)
    theirs = store.storage.open("elsewhere/b.csv", "text/csv", 1)
    for upload in (ours, theirs):
        upload.__enter__()
        upload.write(noise(PART))
        # a part that arrives after an abort would open the upload again
        settle(upload)
    now = datetime.now(UTC)
    assert len(store.partial_files()) == 2
    assert store.storage.list_uploads("", now - timedelta(hours=1)) == set()
    assert store.storage.list_uploads("", now + timedelta(minutes=1)) == {"exports/a.csv", "elsewhere/b.csv"}
    assert store.storage.abort_uploads("exports/", now - timedelta(hours=1)) == 0
    assert store.storage.abort_uploads("exports/", now + timedelta(minutes=1)) == 1
    assert len(store.partial_files()) == 1
    ours.abort()
    theirs.abort()
    assert store.partial_files() == []


def test_the_link_of_a_folder_is_a_file_url(tmp_path: Path) -> None:
    store = folder_store(tmp_path)
    upload_file(store.storage, b"{}", key="a b.json")
    url = store.storage.sign("a b.json", timedelta(hours=1), "a b.json", "application/json")
    assert url == f"file://{tmp_path}/a%20b.json"


def test_partial_files_of_two_attempts_are_two_files(tmp_path: Path) -> None:
    store = folder_store(tmp_path)
    with store.storage.open(KEY, "text/csv", 1) as late, store.storage.open(KEY, "text/csv", 2) as successor:
        late.write(b"old")
        successor.write(b"newer")
        successor.finish()
    assert store.objects() == {KEY: 5}


def test_an_overtaken_attempt_is_found_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = folder_store(tmp_path)

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(Unavailable, match="another attempt has written"):
        overtaken(store, 5)
    assert store.read(KEY) == b"the winner's"


def test_a_folder_that_cant_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = open_storage((tmp_path / "file" / "below").as_uri(), S3Options())
    with pytest.raises(Unavailable, match="Not a directory"):
        storage.check("")


def test_a_full_disk_is_unavailable_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = folder_store(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Unavailable, match="No space left"):
        upload_file(store.storage, noise(10))
    assert (store.objects(), store.partial_files()) == ({}, [])
