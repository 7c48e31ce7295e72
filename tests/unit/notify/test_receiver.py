import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from config.errors import Unavailable
from config.settings_channels import Network
from notify import receiver as module
from notify.mailer import Unanswered, Undeliverable
from notify.receiver import Receiver
from tests.services.process import free_port
from tests.support.certificates import make_authority
from tests.support.webhooks import (
    Request,
    Respond,
    WebhookReceiver,
    answer,
    answer_status,
    cut,
    webhook_receiver,
)

LOCAL: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SETTING = "WAYBILL_WEBHOOK_URL"


@pytest.fixture
def server() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as running:
        yield running


def post(url: str, networks: tuple[Network, ...] = LOCAL) -> None:
    Receiver(url, SETTING, networks).post(b'{"a":1}', {"webhook-id": "msg_1"})


def actions(receiver: Receiver) -> list[Callable[[], None]]:
    return [lambda: receiver.post(b"{}", {}), receiver.check]


def test_a_message_is_posted_as_json_with_its_headers(server: WebhookReceiver) -> None:
    post(server.url)

    (request,) = server.requests
    assert request.line == "POST /hook?token=hush HTTP/1.1"
    assert request.body == b'{"a":1}'
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == "msg_1"
    assert request.headers["user-agent"].startswith("Waybill/")


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_status_of_2xx_is_an_acceptance(server: WebhookReceiver, status: int) -> None:
    server.respond = answer_status(status)

    post(server.url)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 422, 429, 500, 502, 503, 504])
def test_any_other_status_is_retried(server: WebhookReceiver, status: int) -> None:
    server.respond = answer_status(status, b"<b>secret text of the receiver</b>")

    with pytest.raises(Unavailable, match=f"^the receiver of {SETTING} responded with {status}$"):
        post(server.url)


def test_the_error_code_of_slack_is_repeated(server: WebhookReceiver) -> None:
    server.respond = answer_status(404, b"no_service")

    with pytest.raises(Unavailable, match="responded with 404 no_service"):
        post(server.url)


def test_a_receiver_that_is_gone_gets_no_more_of_the_message(server: WebhookReceiver) -> None:
    server.respond = answer_status(410)

    with pytest.raises(Undeliverable, match=f"responded with 410: it wants no more messages, so remove {SETTING}"):
        post(server.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: WebhookReceiver, status: int) -> None:
    with webhook_receiver() as target:
        server.respond = answer_status(status, headers=f"Location: {target.url}\r\n")

        with pytest.raises(Unavailable, match=f"responded with {status}, and redirects are not followed"):
            post(server.url)

        assert (len(server.requests), target.connections) == (1, 0)


@pytest.mark.parametrize(
    "respond",
    [
        cut,
        answer(b""),
        answer(b"HTTP/1.1 200"),
        answer(b"SSH-2.0-server\r\n"),
        answer(b"HTTP/1.1 9999 X\r\n\r\n"),
        answer(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000_000),
    ],
)
def test_without_a_proper_response_the_message_may_have_arrived(server: WebhookReceiver, respond: Respond) -> None:
    server.respond = respond

    with pytest.raises(Unanswered, match=f"the receiver of {SETTING} got the message but did not respond properly"):
        post(server.url)


@pytest.mark.parametrize("end", ["head", "word", "chunk"])
def test_a_refusal_whose_body_does_not_end_is_a_refusal(
    server: WebhookReceiver, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(module, "CODE_SECONDS", 0.5)
    parts = {
        "head": b"Content-Length: 9\r\n\r\n",
        "word": b"Content-Length: 9\r\n\r\nno_serv",
        "chunk": b"Transfer-Encoding: chunked\r\n\r\n1;",
    }
    ended = threading.Event()

    def stop_there(connection: socket.socket, _: Request) -> None:
        connection.sendall(b"HTTP/1.1 500 X\r\n" + parts[end])
        ended.wait(60)

    server.respond = stop_there

    with pytest.raises(Unavailable, match=r"responded with 500$"):
        post(server.url)

    ended.set()


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", f"{'x' * 64}.test"])
def test_a_host_that_has_no_address_is_unavailable(host: str) -> None:
    receiver = Receiver(f"https://{host}/hush", SETTING)

    for act in actions(receiver):
        with pytest.raises(Unavailable, match=f"the receiver of {SETTING} is unavailable"):
            act()


def drip(piece: bytes, ended: threading.Event) -> Respond:
    def send(connection: socket.socket, _: Request) -> None:
        while not ended.wait(0.05):
            connection.sendall(piece)

    return send


@pytest.mark.parametrize("piece", [b"", b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n"])
def test_a_receiver_that_is_slow_is_left_after_a_time(
    server: WebhookReceiver, monkeypatch: pytest.MonkeyPatch, piece: bytes
) -> None:
    monkeypatch.setattr(module, "TOTAL_SECONDS", 1.0)
    ended = threading.Event()
    server.respond = drip(piece, ended)

    with pytest.raises(Unanswered):
        post(server.url)

    ended.set()


@pytest.mark.parametrize("status", [b"200", b"500"])
def test_an_endless_response_is_not_read(server: WebhookReceiver, status: bytes) -> None:
    sent = 0

    def flood(connection: socket.socket, _: Request) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            sent += connection.send(b"x" * 65_536)

    server.respond = flood
    if status == b"200":
        post(server.url)
    else:
        with pytest.raises(Unavailable, match=r"responded with 500$"):
            post(server.url)

    assert sent < 50_000_000


def test_a_compressed_response_is_not_expanded(server: WebhookReceiver) -> None:
    server.respond = answer_status(500, b"\x1f\x8b" + b"\0" * 100, "Content-Encoding: gzip\r\n")

    with pytest.raises(Unavailable, match=r"responded with 500$"):
        post(server.url)

    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_a_closed_port_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"is unavailable \(connection refused\): is WAYBILL_WEBHOOK_URL right"):
        post(f"http://127.0.0.1:{free_port()}/hush")


LOOPBACK = [
    "127.0.0.1",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "localhost.",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_private_address_is_refused_however_it_is_written(server: WebhookReceiver, host: str) -> None:
    receiver = Receiver(f"http://{host}:{server.port}/hush", SETTING)

    for act in actions(receiver):
        with pytest.raises(Unavailable, match=f"the receiver of {SETTING} (can't be used|is unavailable)") as raised:
            act()
        assert "hush" not in str(raised.value)

    assert server.connections == 0


def resolve_to(monkeypatch: pytest.MonkeyPatch, port: int, *answers: list[str]) -> list[str]:
    """Answer look-ups of `receiver.test` with these addresses, and then always the last ones; record them."""
    asked: list[str] = []
    original: Callable[..., Any] = socket.getaddrinfo
    remaining = list(answers)

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name != "receiver.test":
            return original(host, *arguments, **options)
        asked.append(name)
        found = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_a_name_with_a_private_address_is_refused_with_the_setting_that_allows_it(
    server: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, server.port, ["127.0.0.1"])

    with pytest.raises(
        Unavailable,
        match=r"it has the private address 127\.0\.0\.1: if that is intended, add its network to "
        "WAYBILL_WEBHOOK_ALLOWED_NETWORKS",
    ):
        post(f"https://receiver.test:{server.port}/", ())

    assert server.connections == 0


def test_an_answer_of_the_dns_that_changes_leads_nowhere_else(
    server: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look-up gives an address that may be used, and each later one an address that may not."""
    asked = resolve_to(monkeypatch, server.port, ["127.0.0.2"], ["127.0.0.1"])
    allowed = (ip_network("127.0.0.2/32"),)

    with pytest.raises(Unavailable, match="connection refused"):
        post(f"http://receiver.test:{server.port}/", allowed)

    assert (asked, server.connections) == (["receiver.test"], 0)


def test_of_several_addresses_only_those_that_may_be_used_are_tried(
    server: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, server.port, ["10.0.0.1", "169.254.169.254", "127.0.0.1"])

    post(f"http://receiver.test:{server.port}/", (ip_network("127.0.0.1/32"),))

    assert server.requests[0].headers["host"] == f"receiver.test:{server.port}"


def test_plain_http_is_for_allowed_networks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, 9, ["8.8.8.8"])

    with pytest.raises(Unavailable, match="http:// is for the networks of WAYBILL_WEBHOOK_ALLOWED_NETWORKS only"):
        post("http://receiver.test:9/", ())


def test_no_proxy_is_used(server: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")

    post(server.url)

    assert len(server.requests) == 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_authority(tmp_path_factory.mktemp("authority"))


def test_a_certificate_is_checked_for_the_name_in_the_url(authority: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook_receiver(context=authority.server_context()) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        Receiver(server.url, SETTING, LOCAL).check()
        post(server.url.replace("127.0.0.1", "localhost"))
        assert server.names[-1] == "localhost"

        resolve_to(monkeypatch, server.port, ["127.0.0.1"])
        other = Receiver(f"https://receiver.test:{server.port}/", SETTING, LOCAL)
        for act in actions(other):
            with pytest.raises(Unavailable, match="the certificate is for another host name"):
                act()
        assert server.names[-1] == "receiver.test"


def test_a_certificate_of_an_unknown_authority_is_refused(authority: Any) -> None:
    with webhook_receiver(context=authority.server_context()) as server:
        receiver = Receiver(server.url, SETTING, LOCAL)

        for act in actions(receiver):
            with pytest.raises(Unavailable, match="the certificate is not trusted"):
                act()

    assert server.requests == []


def test_a_check_sends_nothing(server: WebhookReceiver) -> None:
    Receiver(server.url, SETTING, LOCAL).check()

    assert server.requests == []


def test_a_check_names_a_port_where_nothing_listens() -> None:
    with pytest.raises(Unavailable, match="connection refused"):
        Receiver(f"http://127.0.0.1:{free_port()}", SETTING, LOCAL).check()


def test_a_new_file_of_authorities_is_read_without_a_restart(
    authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(make_authority(tmp_path / "other").file.read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with webhook_receiver(context=authority.server_context()) as server:
        with pytest.raises(Unavailable, match="not trusted"):
            post(server.url)
        file.write_text(authority.file.read_text())
        post(server.url)
