import contextlib
import hashlib
import http.client
import logging
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, make_url, update

from config.errors import Unavailable
from config.labels import NoFile
from config.tables import application, batch_exports
from consumer.downloads import app as downloads
from consumer.downloads.pages import PAGES
from pipeline.storage.local import FolderStorage
from runtime.database import open_database
from runtime.migrations import migrate
from runtime.threads import in_thread
from tests.support.downloads import DATA, KEY, Answer, Door, path
from tests.support.exports import after, queue, set_status

SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_database(make_url(f"sqlite:///{tmp_path}/jobs.db"))
    application.create_all(opened)
    migrate(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def door(engine: Engine, tmp_path: Path) -> Iterator[Door]:
    with Door(engine, FolderStorage(tmp_path / "files")).open() as opened:
        yield opened


def title(answer: Answer) -> str:
    found = re.search(r"<h1>(.*)</h1>", answer.body.decode())
    assert found is not None
    return found[1]


def assert_guarded(answer: Answer) -> None:
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_file_in_a_folder_is_served_whole(door: Door) -> None:
    answer = door.ask(door.complete())

    assert (answer.status, hashlib.sha256(answer.body).hexdigest()) == (200, SHA256)
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{KEY.rpartition("/")[2]}"'
    assert answer.headers["ETag"] == f'"{SHA256}"'
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert_guarded(answer)


def test_head_says_the_same_and_takes_nothing_away(door: Door) -> None:
    link = door.complete()
    answers = [door.ask(link, "HEAD") for _ in range(3)]

    whole = door.ask(link)

    assert whole.body == DATA
    for answer in answers:
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["Content-Length"] == str(len(DATA))
        assert {name: text for name, text in answer.headers.items() if name != "Date"} == {
            name: text for name, text in whole.headers.items() if name != "Date"
        }


@pytest.mark.parametrize(
    ("asked", "part"),
    [("bytes=0-9", slice(0, 10)), ("bytes=2559990-", slice(2_559_990, None)), ("bytes=-5", slice(-5, None))],
)
def test_a_part_is_served_to_who_has_the_rest(door: Door, asked: str, part: slice) -> None:
    answer = door.ask(door.complete(), Range=asked)

    start, stop, _ = part.indices(len(DATA))
    assert (answer.status, answer.body) == (206, DATA[part])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert answer.headers["Content-Length"] == str(stop - start)


def test_a_download_is_resumed_after_it_broke_off(door: Door) -> None:
    link = door.complete()
    first = door.ask(link, Range="bytes=0-999999")

    rest = door.ask(link, Range="bytes=1000000-", If_Range=first.headers["ETag"])

    assert (rest.status, first.body + rest.body) == (206, DATA)


@pytest.mark.parametrize("validator", ['"another"', f'W/"{SHA256}"', "Sat, 21 Nov 2026 12:00:00 GMT"])
def test_the_rest_of_another_file_is_not_served(door: Door, validator: str) -> None:
    answer = door.ask(door.complete(), Range="bytes=1000000-", If_Range=validator)

    assert (answer.status, answer.body) == (200, DATA)


def test_a_part_beyond_the_end_is_refused_with_the_size(door: Door) -> None:
    answer = door.ask(door.complete(), Range=f"bytes={len(DATA)}-")

    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")
    assert answer.body == b""


def test_several_ranges_are_answered_with_the_whole(door: Door) -> None:
    answer = door.ask(door.complete(), Range="bytes=0-1,5-6")

    assert (answer.status, answer.body) == (200, DATA)


def test_an_empty_file_is_served(door: Door) -> None:
    answer = door.ask(door.complete(b""))

    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")


def test_a_file_with_an_odd_name_is_found(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "exports/1-lf-traces-export-a%2Fb-ü %.csv"
    monkeypatch.setattr("tests.support.downloads.KEY", odd)

    answer = door.ask(door.complete())

    assert (answer.status, answer.body) == (200, DATA)
    assert "filename*=UTF-8''1-lf-traces-export-a%252Fb-%C3%BC%20%25.csv" in answer.headers["Content-Disposition"]


def expire(door: Door) -> None:
    door.complete()
    door.time = after(3600)


def cancel(door: Door) -> None:
    door.complete()
    set_status(door.engine, "CANCELLED")


def fail(door: Door) -> None:
    queue(door.engine, status="FAILED", log="Column <b>latncy</b> is not known")


def delete_the_file(door: Door) -> None:
    door.complete()
    door.storage.delete(KEY, 1)


def cut_the_file(door: Door) -> None:
    door.complete()
    door.put(DATA[:-1])


def delete_the_row(door: Door) -> None:
    door.complete()
    with door.engine.begin() as connection:
        connection.execute(delete(batch_exports))


def queue_only(door: Door) -> None:
    queue(door.engine)


def process(door: Door) -> None:
    queue(door.engine, status="PROCESSING")


def forget_the_end(door: Door) -> None:
    door.complete()
    with door.engine.begin() as connection:
        connection.execute(update(batch_exports).values(expires_at=None))


def finish_by_another_worker(door: Door) -> None:
    queue(door.engine, status="COMPLETED", expires_at=after(60), url="https://elsewhere")


def break_the_query(door: Door) -> None:
    door.complete()
    with door.engine.begin() as connection:
        connection.execute(update(batch_exports).values(query={"tableName": None}))


def move_to_another_project(door: Door) -> None:
    door.complete()
    with door.engine.begin() as connection:
        connection.execute(update(batch_exports).values(project_id="project-2"))


@pytest.mark.parametrize(
    ("arrange", "status", "why"),
    [
        (expire, 410, NoFile.EXPIRED),
        (forget_the_end, 410, NoFile.EXPIRED),
        (cancel, 410, NoFile.CANCELLED),
        (fail, 410, NoFile.FAILED),
        (delete_the_file, 404, NoFile.GONE),
        (cut_the_file, 404, NoFile.GONE),
        (delete_the_row, 404, NoFile.GONE),
        (finish_by_another_worker, 404, NoFile.GONE),
        (break_the_query, 404, NoFile.GONE),
        (move_to_another_project, 404, NoFile.GONE),
        (queue_only, 404, NoFile.NOT_READY),
        (process, 404, NoFile.NOT_READY),
    ],
)
def test_a_page_says_why_there_is_no_file(door: Door, arrange: Any, status: int, why: NoFile) -> None:
    arrange(door)

    answer = door.ask(path())

    assert (answer.status, title(answer)) == (status, PAGES[why].title)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert_guarded(answer)
    assert door.counted() == {why: 1}
    assert not any(word in answer.body.decode() for word in ("project-", "export-1", KEY))
    assert door.ask(path(), "HEAD").status == status


def test_the_reason_of_a_failure_is_shown_and_escaped(door: Door) -> None:
    fail(door)

    body = door.ask(path()).body.decode()

    assert "Column &lt;b&gt;latncy&lt;/b&gt; is not known" in body


@pytest.mark.parametrize(
    "link",
    [
        "/d/x",
        path()[:-1],
        path() + "A",
        "/d/" + path()[3:].swapcase(),
        "/d/%00",
        "/d/..%2F..%2Fetc%2Fpasswd",
        "/d/%C3%A9",
        "/d/" + "A" * 7000,
        "/d/<script>".replace("<", "%3C"),
    ],
)
def test_a_link_that_is_not_ours_gets_no_more_than_that(door: Door, link: str) -> None:
    door.complete()

    answer = door.ask(link)

    assert (answer.status, title(answer)) == (404, "This link is not valid")
    assert "script" not in answer.body.decode()
    assert_guarded(answer)


def test_a_page_needs_nothing_that_its_policy_forbids(door: Door) -> None:
    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append(tag)
            assert not {name for name, _ in attrs} & {"src", "href", "style", "onload", "action"}

    seen: list[str] = []
    Tags().feed(door.ask("/d/x").body.decode())

    assert set(seen) == {"html", "head", "meta", "title", "style", "body", "main", "h1", "p"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_link_can_only_be_looked_at(door: Door, method: str) -> None:
    assert door.ask(door.complete(), method).status == 405


def test_too_many_requests_have_to_wait(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    link = door.complete()
    monkeypatch.setattr("consumer.downloads.app.time.monotonic", lambda: 1000.0)

    answers = [door.ask(link, "HEAD").status for _ in range(downloads.EACH.burst)]
    refused = door.ask(link)

    assert set(answers) == {200}
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert title(refused) == "Too many requests"
    # A claim to be somebody else does not help.
    assert door.ask(link, X_Forwarded_For="1.2.3.4").status == 429


def test_behind_a_proxy_that_is_trusted_each_client_is_counted(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.downloads.app.time.monotonic", lambda: 1000.0)
    with Door(engine, FolderStorage(tmp_path), trusted_proxies=1).open() as door:
        link = door.complete()
        for _ in range(downloads.EACH.burst):
            door.ask(link, "HEAD", X_Forwarded_For="1.2.3.4")

        assert door.ask(link, "HEAD", X_Forwarded_For="6.6.6.6, 1.2.3.4").status == 429
        assert door.ask(link, "HEAD", X_Forwarded_For="1.2.3.4, 5.6.7.8").status == 200


def test_a_store_or_database_that_does_not_answer_is_for_later(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise Unavailable("the database failed")

    link = door.complete()
    for owner, name in ((door.jobs, "find"), (door.storage, "size")):
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, away)
            answer = door.ask(link)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
        assert "database" not in answer.body.decode()

    assert door.ask(link).status == 200


def test_a_database_that_hangs_holds_up_neither_the_loop_nor_ever_more_requests(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, hang, waiting = door.complete(), threading.Event(), threading.Semaphore(0)
    monkeypatch.setattr(downloads, "LOOKUP_SECONDS", 0.2)

    def hangs(*_: object) -> None:
        waiting.release()
        hang.wait(30)

    monkeypatch.setattr(door.jobs, "find", hangs)
    stuck = [threading.Thread(target=door.ask, args=(link,)) for _ in range(downloads.LOOKUPS_AT_ONCE)]
    for each in stuck:
        each.start()
    for _ in stuck:
        assert waiting.acquire(timeout=20)
    try:
        assert door.ask(link).status == 503
        assert door.ask("/livez").status == 200
    finally:
        hang.set()
        for each in stuck:
            each.join(20)


def test_a_file_that_is_cut_while_it_is_served_breaks_the_connection_off(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = door.complete()
    file = tmp_path / "files" / KEY
    opened = downloads._open

    def open_and_cut(*arguments: Any) -> Any:
        handle = opened(*arguments)
        with file.open("r+b") as stream:
            stream.truncate(1000)
        return handle

    monkeypatch.setattr(downloads, "_open", open_and_cut)

    with pytest.raises((http.client.HTTPException, ConnectionError)):
        door.ask(link)


def test_a_download_that_goes_on_does_not_keep_the_daemon_from_ending(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.http.CLOSE_SECONDS", 0.2)
    door, asked, reading = Door(engine, FolderStorage(tmp_path / "files")), threading.Event(), threading.Event()

    async def slow(_: object, response: Any, *__: object) -> Any:
        asked.set()
        await in_thread(reading.wait, 30)
        return response

    def download() -> None:
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            door.ask(path())

    monkeypatch.setattr(downloads, "_send", slow)
    with door.open():
        thread = threading.Thread(target=download, daemon=True)
        door.complete()
        thread.start()
        assert asked.wait(20)
    # Left with the answer still under way: `open` has waited for the daemon's end.
    reading.set()
    thread.join(20)


def test_no_token_is_logged(door: Door, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)
    link = door.complete()
    door.ask(link)
    door.ask(link[:-1])
    door.ask(link, "POST")
    set_status(door.engine, "CANCELLED")
    door.ask(link)

    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(door.jobs, "find", bug)
    assert door.ask(link).status == 500

    told = "".join(f"{record.__dict__}{record.getMessage()}{record.exc_text}" for record in caplog.records)
    assert "a link led to the file" in told
    assert link[3:20] not in told


def test_the_link_lives_until_the_row_expires_and_not_a_moment_longer(door: Door) -> None:
    link = door.complete()

    door.time = after(3600) - timedelta(milliseconds=1)
    assert door.ask(link).status == 200
    door.time = after(3600)
    assert door.ask(link).status == 410
