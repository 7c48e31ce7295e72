"""Download links lead to the file or to a page, with a folder, moto and a real S3 server as the store."""

import hashlib
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import make_url

from config.tables import langfuse
from pipeline.storage import Storage
from runtime.database import open_database
from runtime.migrations import migrate
from tests import moto_server
from tests.contract.stores import PART, folder_store, noise, s3_store
from tests.support.downloads import FORMER_KEY, KEY, Answer, DownloadServer
from tests.support.exports import after, set_status

DATA = noise(2 * PART + 7)


@pytest.fixture(params=["folder", "moto", "real"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    match request.param:
        case "folder":
            yield folder_store(tmp_path / "a folder").storage
        case "moto":
            with moto_server.running() as moto:
                yield s3_store(moto.bucket).storage
        case _:
            with request.getfixturevalue("s3").bucket() as bucket:
                yield s3_store(bucket).storage


@pytest.fixture
def server(storage: Storage, tmp_path: Path) -> Iterator[DownloadServer]:
    engine = open_database(make_url(f"sqlite:///{tmp_path}/jobs.db"))
    langfuse.create_all(engine)
    migrate(engine)
    with DownloadServer(engine, storage).open() as opened:
        yield opened
    engine.dispose()


def follow(server: DownloadServer, answer: Answer, path: str) -> tuple[bytes, Message]:
    """Follow the redirect, as a browser does."""
    with urllib.request.urlopen(answer.headers["Location"] or server.base + path, timeout=60) as whole:
        return whole.read(), whole.headers


def test_each_click_downloads_the_complete_file_under_its_name(server: DownloadServer) -> None:
    link = server.complete(DATA)

    for _ in range(2):
        data, headers = follow(server, server.ask(link), link)

        assert hashlib.sha256(data).digest() == hashlib.sha256(DATA).digest()
        assert headers["Content-Disposition"] == f'attachment; filename="{KEY.rpartition("/")[2]}"'
        assert headers["Content-Type"] == "text/csv; charset=utf-8"


def test_a_link_leads_to_a_file_under_the_name_that_an_earlier_version_gave_it(server: DownloadServer) -> None:
    link = server.complete(DATA, FORMER_KEY)

    data, headers = follow(server, server.ask(link), link)

    assert data == DATA
    assert headers["Content-Disposition"] == f'attachment; filename="{FORMER_KEY.rpartition("/")[2]}"'


def test_a_signed_url_is_valid_until_the_link_expires_and_for_ten_minutes_at_most(
    server: DownloadServer,
) -> None:
    link = server.complete(DATA)
    answer = server.ask(link)
    if answer.headers["Location"] is None:
        assert (answer.status, answer.body) == (200, DATA)  # a folder has nothing to sign
        return

    lifetimes = []
    for seconds in (0, 3600 - 61.5, 3600 - 0.5):
        server.time = after(seconds)
        answer = server.ask(link)
        assert (answer.status, answer.body) == (302, b"")
        assert (answer.headers["Cache-Control"], answer.headers["Referrer-Policy"]) == ("no-store", "no-referrer")
        lifetimes += parse_qs(urlsplit(answer.headers["Location"]).query)["X-Amz-Expires"]
    assert lifetimes == ["600", "61", "1"]


def test_a_range_of_the_file_can_be_downloaded(server: DownloadServer) -> None:
    link = server.complete(DATA)
    target = server.ask(link).headers["Location"] or server.base + link

    with urllib.request.urlopen(urllib.request.Request(target, headers={"Range": "bytes=-5"}), timeout=60) as part:
        assert (part.status, part.read()) == (206, DATA[-5:])


def test_head_describes_the_file_on_every_store(server: DownloadServer) -> None:
    link = server.complete(DATA)

    # A redirect would lead to 403: the store's URL is signed for GET.
    answer = server.ask(link, "HEAD")

    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{KEY.rpartition("/")[2]}"'
    assert server.counted() == {"served": 1}


@pytest.mark.parametrize("how", ["expired", "cancelled", "deleted", "replaced"])
def test_a_link_without_a_file_shows_a_page(server: DownloadServer, how: str) -> None:
    link = server.complete(DATA)
    assert server.ask(link, "HEAD").status == 200
    match how:
        case "expired":
            server.time = after(3600)
        case "cancelled":
            set_status(server.engine, "CANCELLED")
        case "deleted":
            server.storage.delete(KEY, 1)
        case _:
            server.put(DATA[:-1])

    answer = server.ask(link)

    assert answer.status == (410 if how in {"expired", "cancelled"} else 404)
    assert answer.headers["Location"] is None
    assert b"<h1>" in answer.body
