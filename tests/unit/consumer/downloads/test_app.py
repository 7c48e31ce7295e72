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
from aiohttp.test_utils import make_mocked_request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, update

from config.errors import Unavailable
from config.labels import NoFile
from config.tables import batch_exports
from consumer.downloads import app as downloads
from consumer.downloads.locate import NoDownload
from consumer.downloads.pages import PAGES, render
from pipeline.storage.local import LocalStorage
from runtime.threads import in_thread
from tests.support.downloads import DATA, KEY, LANGFUSE_URL, Answer, DownloadServer, path
from tests.support.exports import after, queue, set_status

EXPORTS_PAGE = f"{LANGFUSE_URL}/project/project-1/settings/exports"

SETTINGS = settings(deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(engine: Engine, tmp_path: Path) -> Iterator[DownloadServer]:
    with DownloadServer(engine, LocalStorage(tmp_path / "files")).open() as opened:
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


def test_a_local_file_is_served_completely(server: DownloadServer) -> None:
    answer = server.ask(server.complete())

    assert (answer.status, hashlib.sha256(answer.body).hexdigest()) == (200, SHA256)
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{KEY.rpartition("/")[2]}"'
    assert answer.headers["ETag"] == f'"{SHA256}"'
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert_guarded(answer)


def test_head_returns_the_same_headers_and_consumes_nothing(server: DownloadServer) -> None:
    link = server.complete()
    answers = [server.ask(link, "HEAD") for _ in range(3)]

    whole = server.ask(link)

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
def test_a_range_is_served(server: DownloadServer, asked: str, part: slice) -> None:
    answer = server.ask(server.complete(), Range=asked)

    start, stop, _ = part.indices(len(DATA))
    assert (answer.status, answer.body) == (206, DATA[part])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert answer.headers["Content-Length"] == str(stop - start)


def test_an_interrupted_download_is_resumed(server: DownloadServer) -> None:
    link = server.complete()
    first = server.ask(link, Range="bytes=0-999999")

    rest = server.ask(link, Range="bytes=1000000-", If_Range=first.headers["ETag"])

    assert (rest.status, first.body + rest.body) == (206, DATA)


@pytest.mark.parametrize("validator", ['"another"', f'W/"{SHA256}"', "Sat, 21 Nov 2026 12:00:00 GMT"])
def test_a_range_is_ignored_when_if_range_names_another_file(server: DownloadServer, validator: str) -> None:
    answer = server.ask(server.complete(), Range="bytes=1000000-", If_Range=validator)

    assert (answer.status, answer.body) == (200, DATA)


def test_a_range_beyond_the_end_is_refused_with_the_size(server: DownloadServer) -> None:
    answer = server.ask(server.complete(), Range=f"bytes={len(DATA)}-")

    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")
    assert answer.body == b""


def test_several_ranges_are_answered_with_the_whole_file(server: DownloadServer) -> None:
    answer = server.ask(server.complete(), Range="bytes=0-1,5-6")

    assert (answer.status, answer.body) == (200, DATA)


def test_an_empty_file_is_served(server: DownloadServer) -> None:
    answer = server.ask(server.complete(b""))

    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")


def test_a_file_with_special_characters_in_its_name_is_found(server: DownloadServer) -> None:
    odd = "exports/1-b-ü %-lf-traces-export-a%2F.csv"

    answer = server.ask(server.complete(DATA, odd))

    assert (answer.status, answer.body) == (200, DATA)
    assert "filename*=UTF-8''1-b-%C3%BC%20%25-lf-traces-export-a%252F.csv" in answer.headers["Content-Disposition"]


def expire(server: DownloadServer) -> None:
    server.complete()
    server.time = after(3600)


def cancel(server: DownloadServer) -> None:
    server.complete()
    set_status(server.engine, "CANCELLED")


def fail(server: DownloadServer) -> None:
    queue(server.engine, status="FAILED", log="Column <b>latncy</b> is not known")


def delete_the_file(server: DownloadServer) -> None:
    server.complete()
    server.storage.delete(KEY, 1)


def cut_the_file(server: DownloadServer) -> None:
    server.complete()
    server.put(DATA[:-1])


def delete_the_row(server: DownloadServer) -> None:
    server.complete()
    with server.engine.begin() as connection:
        connection.execute(delete(batch_exports))


def queue_only(server: DownloadServer) -> None:
    queue(server.engine)


def process(server: DownloadServer) -> None:
    queue(server.engine, status="PROCESSING")


def forget_the_end(server: DownloadServer) -> None:
    server.complete()
    with server.engine.begin() as connection:
        connection.execute(update(batch_exports).values(expires_at=None))


def finish_by_another_worker(server: DownloadServer) -> None:
    queue(server.engine, status="COMPLETED", expires_at=after(60), url="https://elsewhere")


def break_the_query(server: DownloadServer) -> None:
    server.complete()
    with server.engine.begin() as connection:
        connection.execute(update(batch_exports).values(query={"tableName": None}))


def move_to_another_project(server: DownloadServer) -> None:
    server.complete()
    with server.engine.begin() as connection:
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
def test_a_page_says_why_there_is_no_file(server: DownloadServer, arrange: Any, status: int, why: NoFile) -> None:
    arrange(server)

    answer = server.ask(path())

    assert (answer.status, title(answer)) == (status, PAGES[why].title)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert_guarded(answer)
    assert server.counted() == {why: 1}
    said = answer.body.decode().replace(f'href="{EXPORTS_PAGE}"', "")
    assert not any(word in said for word in ("project-", "export-1", KEY))
    assert server.ask(path(), "HEAD").status == status


def test_the_reason_of_a_failure_is_shown_and_escaped(server: DownloadServer) -> None:
    fail(server)

    body = server.ask(path()).body.decode()

    assert "Column &lt;b&gt;latncy&lt;/b&gt; is not known.</p>" in body
    assert "If it fails again, contact your administrator." in body


def test_a_long_reason_is_cut_as_in_the_email(server: DownloadServer) -> None:
    queue(server.engine, status="FAILED", log="x" * 5_000)

    body = server.ask(path()).body.decode()

    assert f">{'x' * 999}…</p>" in body


@pytest.mark.parametrize("arrange", [expire, cancel, fail, delete_the_file])
def test_a_page_links_to_langfuse_where_the_export_can_be_started_again(server: DownloadServer, arrange: Any) -> None:
    arrange(server)

    body = server.ask(path()).body.decode()

    assert f'You can start the export again in <a href="{LANGFUSE_URL}">Langfuse</a>.' in body


@pytest.mark.parametrize("arrange", [expire, cancel, fail, delete_the_file, process])
def test_a_page_links_to_the_exports_of_the_project(server: DownloadServer, arrange: Any) -> None:
    arrange(server)

    assert f'All your exports are on the <a href="{EXPORTS_PAGE}">exports page</a>.' in server.ask(path()).body.decode()


def test_the_page_of_an_invalid_link_names_no_project(server: DownloadServer) -> None:
    assert "<a" not in server.ask("/d/invalid").body.decode()


def test_the_id_of_a_project_is_escaped() -> None:
    page = render(NoDownload(why=NoFile.EXPIRED), LANGFUSE_URL, '"><script>&/../x')

    assert f'href="{LANGFUSE_URL}/project/%22%3E%3Cscript%3E%26%2F..%2Fx/settings/exports"' in page


def test_without_the_url_of_langfuse_a_page_has_no_link() -> None:
    page = render(NoDownload(why=NoFile.EXPIRED), None, "project-1")

    assert "You can start the export again in Langfuse." in page
    assert "<a" not in page


def test_an_export_that_is_not_ready_promises_no_email(server: DownloadServer) -> None:
    process(server)

    body = server.ask(path()).body.decode()

    assert "Open the link again later." in body
    assert "email" not in body


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
def test_an_invalid_link_reveals_nothing(server: DownloadServer, link: str) -> None:
    server.complete()

    answer = server.ask(link)

    assert (answer.status, title(answer)) == (404, "This link is not valid")
    assert "script" not in answer.body.decode()
    assert_guarded(answer)


def test_a_page_uses_nothing_that_its_content_security_policy_forbids(server: DownloadServer) -> None:
    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append(tag)
            assert not {name for name, _ in attrs} & {"src", "href", "style", "onload", "action"}

    seen: list[str] = []
    Tags().feed(server.ask("/d/x").body.decode())

    assert set(seen) == {"html", "head", "meta", "title", "style", "body", "main", "h1", "p"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_link_allows_only_get_and_head(server: DownloadServer, method: str) -> None:
    assert server.ask(server.complete(), method).status == 405


def test_too_many_requests_are_refused_for_a_while(server: DownloadServer, monkeypatch: pytest.MonkeyPatch) -> None:
    link = server.complete()
    monkeypatch.setattr("consumer.downloads.app.time.monotonic", lambda: 1000.0)

    answers = [server.ask(link, "HEAD").status for _ in range(downloads.PER_CLIENT.burst)]
    refused = server.ask(link)

    assert set(answers) == {200}
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert title(refused) == "Too many requests"
    # A forged X-Forwarded-For header does not help.
    assert server.ask(link, X_Forwarded_For="1.2.3.4").status == 429


def test_behind_a_trusted_proxy_each_client_is_limited(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.downloads.app.time.monotonic", lambda: 1000.0)
    with DownloadServer(engine, LocalStorage(tmp_path), trusted_proxies=1).open() as server:
        link = server.complete()
        for _ in range(downloads.PER_CLIENT.burst):
            server.ask(link, "HEAD", X_Forwarded_For="1.2.3.4")

        assert server.ask(link, "HEAD", X_Forwarded_For="6.6.6.6, 1.2.3.4").status == 429
        assert server.ask(link, "HEAD", X_Forwarded_For="1.2.3.4, 5.6.7.8").status == 200


def test_an_unavailable_store_or_database_is_answered_with_503(
    server: DownloadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise Unavailable("the database failed")

    link = server.complete()
    for owner, name in ((server.jobs, "find"), (server.storage, "size")):
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, unavailable)
            answer = server.ask(link)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
        assert "database" not in answer.body.decode()

    assert server.ask(link).status == 200


def test_a_hanging_database_blocks_neither_the_event_loop_nor_more_and_more_requests(
    server: DownloadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, hang, waiting = server.complete(), threading.Event(), threading.Semaphore(0)
    monkeypatch.setattr(downloads, "LOOKUP_SECONDS", 0.2)

    def hangs(*_: object) -> None:
        waiting.release()
        hang.wait(30)

    monkeypatch.setattr(server.jobs, "find", hangs)
    stuck = [threading.Thread(target=server.ask, args=(link,)) for _ in range(downloads.MAX_LOOKUPS)]
    for each in stuck:
        each.start()
    for _ in stuck:
        assert waiting.acquire(timeout=20)
    try:
        assert server.ask(link).status == 503
        assert server.ask("/d/invalid").status == 404
    finally:
        hang.set()
        for each in stuck:
            each.join(20)


def test_the_connection_is_closed_when_the_file_is_truncated_while_it_is_served(
    server: DownloadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = server.complete()
    file = tmp_path / "files" / KEY
    opened = downloads._open

    def open_and_cut(*arguments: Any) -> Any:
        handle = opened(*arguments)
        with file.open("r+b") as stream:
            stream.truncate(1000)
        return handle

    monkeypatch.setattr(downloads, "_open", open_and_cut)

    with pytest.raises((http.client.HTTPException, ConnectionError)):
        server.ask(link)


def test_a_running_download_does_not_block_the_shutdown(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.http.CLOSE_SECONDS", 0.2)
    server, asked, reading = (
        DownloadServer(engine, LocalStorage(tmp_path / "files")),
        threading.Event(),
        threading.Event(),
    )

    async def slow(_: object, response: Any, *__: object) -> Any:
        asked.set()
        await in_thread(reading.wait, 30)
        return response

    def download() -> None:
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            server.ask(path())

    monkeypatch.setattr(downloads, "_send", slow)
    with server.open():
        thread = threading.Thread(target=download, daemon=True)
        server.complete()
        thread.start()
        assert asked.wait(20)
    # The response was still running when the block ended: `open` has waited until the daemon ended.
    reading.set()
    thread.join(20)


def test_no_token_is_logged(
    server: DownloadServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    link = server.complete()
    server.ask(link)
    server.ask(link[:-1])
    server.ask(link, "POST")
    set_status(server.engine, "CANCELLED")
    server.ask(link)

    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server.jobs, "find", bug)
    assert server.ask(link).status == 500

    logged = "".join(f"{record.__dict__}{record.getMessage()}{record.exc_text}" for record in caplog.records)
    assert "a download link led to a file" in logged
    assert link[3:20] not in logged


def test_the_link_works_until_the_row_expires(server: DownloadServer) -> None:
    link = server.complete()

    server.time = after(3600) - timedelta(milliseconds=1)
    assert server.ask(link).status == 200
    server.time = after(3600)
    assert server.ask(link).status == 410


def read_range(header: str | None, size: int) -> range | None:
    headers = {} if header is None else {"Range": header}
    return downloads._read_range(make_mocked_request("GET", "/", headers=headers), size, '"etag"')


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("bytes=0-0", range(1)),
        ("bytes=2-5", range(2, 6)),
        ("bytes=2-", range(2, 10)),
        ("bytes=2-9999", range(2, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-9999", range(10)),
        ("Bytes=9-9", range(9, 10)),
    ],
)
def test_one_range_is_read(header: str, asked: range) -> None:
    assert read_range(header, 10) == asked


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes=-",
        "bytes=5-2",
        "bytes=0-1,3-4",
        "rows=0-1",
        "bytes=a-b",
        "bytes 0-1",
        "bytes=0x1-2",
        "bytes=0-" + "9" * 5000,
    ],
)
def test_a_header_that_is_not_one_range_is_ignored(header: str | None) -> None:
    assert read_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=99-100", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_beyond_the_end_is_empty(header: str, size: int) -> None:
    assert read_range(header, size) == range(0)


@SETTINGS
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 200))
def test_a_range_is_always_within_the_file(first: int, last: int, size: int) -> None:
    asked = read_range(f"bytes={first}-{last}", size)
    if asked is None:
        assert last < first
    else:
        assert list(asked) == [byte for byte in range(size) if first <= byte <= last]
