import gzip
import hmac
import http.client
import logging
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from consumer.operators import app
from tests.support.exports import queue, row_of
from tests.support.operators import BEARER, TOKEN, Answer, OperatorServer

CANCEL = "/api/v1/exports/project-1/export-1/cancel"
RETRY = "/api/v1/exports/project-1/export-1/retry"
CREATE = "/api/v1/exports"
CHECK = "/api/v1/access"
WRONG = {"Authorization": "Bearer " + "x" * 32}
CHANGES = [CANCEL, RETRY, CREATE]


@pytest.fixture
def server(engine: Engine) -> Iterator[OperatorServer]:
    queue(engine)
    with OperatorServer(engine).open() as opened:
        yield opened


def read_problem(answer: Answer) -> dict[str, Any]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status
    return problem


@pytest.mark.parametrize("path", CHANGES)
def test_nothing_can_be_changed_where_no_token_is_set(engine: Engine, path: str) -> None:
    queue(engine)
    with OperatorServer(engine, token=None).open() as server:
        answers = [server.change(path, headers) for headers in ({}, BEARER, {"Authorization": "Bearer "})]

        assert server.overview()["changesAllowed"] is False
        assert server.ask("/api/v1/exports/project-1/export-1").status == 200
    assert [read_problem(each)["status"] for each in answers] == [403] * 3
    assert row_of(engine)["status"] == "QUEUED"


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN.upper()}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \u00e9"},
        {"Cookie": f"Authorization=Bearer {TOKEN}; token={TOKEN}"},
        {"X-Authorization": f"Bearer {TOKEN}"},
    ],
)
def test_a_change_without_the_right_token_is_refused(
    engine: Engine, server: OperatorServer, path: str, headers: dict[str, str]
) -> None:
    answer = server.change(path, headers)

    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert read_problem(answer)["detail"]
    assert TOKEN not in answer.body.decode()
    assert row_of(engine)["status"] == "QUEUED"


def test_the_token_is_not_read_from_the_query(engine: Engine, server: OperatorServer) -> None:
    assert server.change(f"{CANCEL}?token={TOKEN}&access_token={TOKEN}", {}).status == 401
    assert row_of(engine)["status"] == "QUEUED"


@pytest.mark.parametrize("path", [CANCEL, RETRY])
def test_a_change_is_never_made_by_get(engine: Engine, server: OperatorServer, path: str) -> None:
    assert server.ask(path, headers=BEARER).status == 404
    assert row_of(engine)["status"] == "QUEUED"


def test_the_right_token_is_accepted(server: OperatorServer) -> None:
    assert server.ask(CHECK, headers=BEARER).status == 204
    assert server.ask(CHECK, headers={"authorization": f"bearer  {TOKEN} "}).status == 204
    assert server.ask(CHECK, headers=WRONG).status == 401


def test_tokens_are_compared_in_constant_time(server: OperatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def record(given: bytes, expected: bytes) -> bool:
        compared.append((len(given), len(expected)))
        return compare(given, expected)

    monkeypatch.setattr(hmac, "compare_digest", record)
    for token in ("x", "x" * 32, "x" * 1000):
        server.change(CANCEL, {"Authorization": f"Bearer {token}"})

    assert compared == [(32, 32)] * 3


def test_a_client_that_sends_wrong_tokens_has_to_wait_even_with_the_right_one(server: OperatorServer) -> None:
    statuses = [server.change(CANCEL, WRONG).status for _ in range(12)]
    late = server.change(CANCEL, BEARER)

    assert statuses == [401] * 10 + [429] * 2
    assert late.status == 429
    assert 1 <= int(late.headers["Retry-After"]) <= 10
    assert server.ask("/api/v1/overview").status == 200


def test_right_tokens_and_reads_are_not_limited(server: OperatorServer) -> None:
    assert {server.ask(CHECK, headers=BEARER).status for _ in range(30)} == {204}


@pytest.mark.parametrize("path", ["/", "/operators.js", "/api/v1/overview", "/api/v1/nothing", CHECK])
def test_every_answer_has_the_security_headers_and_sets_no_cookie(server: OperatorServer, path: str) -> None:
    answer = server.ask(path)

    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Set-Cookie"] is None


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_pages_of_other_sites_get_no_permission(server: OperatorServer, method: str) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization"

    answer = server.ask(CANCEL, method, asked)

    assert answer.status in {401, 404, 405}
    assert [name for name in answer.headers if name.lower().startswith("access-control-")] == []


def test_the_page_names_no_foreign_host_and_writes_texts_only(server: OperatorServer) -> None:
    page, script, style = (server.ask(path).body.decode() for path in ("/", "/operators.js", "/operators.css"))

    assert re.findall(r"https?://|//[\w.-]+\.\w+/", page + script + style) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|srcdoc", script) == []
    assert re.findall(r"<script(?! src=)|<style|\son\w+=|\sstyle=", page) == []
    assert re.findall(r"url\(|@import", style) == []


def test_unknown_paths_of_the_api_are_problems(server: OperatorServer) -> None:
    assert read_problem(server.ask("/api/v1/nothing"))["status"] == 404
    assert read_problem(server.ask("/api/v1/overview", "DELETE"))["status"] == 404


def send(server: OperatorServer, *headers: str, body: bytes = b"", half: bool = False) -> bytes:
    """Send a request to create, and return the response; with `half`, close the connection instead of reading."""
    host, port = server.base.removeprefix("http://").split(":")
    lines = [f"POST {CREATE} HTTP/1.1", "Host: x", "Connection: close", "Idempotency-Key: k", *headers]
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = "\r\n".join([*lines, f"Authorization: Bearer {TOKEN}", "", ""])
        connection.sendall(head.encode() + body)
        received = b""
        while not half and (part := connection.recv(65536)):
            received += part
        return received


@pytest.mark.parametrize(
    ("body", "status"),
    [(gzip.compress(b" " * 40_000_000), 413), (b"abcd", 400), (gzip.compress(b" " * 1000)[:-9], 400)],
    ids=["grows", "no gzip", "cut"],
)
def test_a_compressed_body_is_limited_and_one_that_cannot_be_decoded_is_refused(
    server: OperatorServer, caplog: pytest.LogCaptureFixture, body: bytes, status: int
) -> None:
    answer = send(server, "Content-Encoding: gzip", f"Content-Length: {len(body)}", body=body)

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"application/problem+json" in answer
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_client_that_leaves_in_the_middle_of_its_body_is_not_logged_as_an_error(
    server: OperatorServer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        send(server, "Content-Length: 1000", body=b"{", half=True)

    assert server.ask(CHECK, headers=BEARER).status == 204
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_body_that_does_not_arrive_is_not_waited_for(server: OperatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS", 0.2)
    connection = http.client.HTTPConnection(server.base.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", CREATE)
    for name, value in {**BEARER, "Idempotency-Key": "k", "Content-Length": "100"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"{")

    answer = connection.getresponse()

    assert (answer.status, answer.headers["Content-Type"]) == (408, "application/problem+json")
    connection.close()
