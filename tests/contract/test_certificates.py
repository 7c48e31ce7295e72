"""A certificate of a trusted authority that is for another host, or has expired, is named as that by every client."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.errors import Unavailable
from config.settings import load
from notify.address import parse_address
from notify.smtp_url import parse_server
from pipeline.read.connect import list_tables
from pipeline.read.connections import ClickHouse
from pipeline.storage import S3Options, open_storage
from runtime.kafka_admin import check_topics
from tests.support.certificates import Authority, make_authority, sign_server

CERTIFICATES = {
    "for another host": ("DNS:elsewhere.example.com", 2),
    "has expired": ("IP:127.0.0.1", -1),
}


@contextlib.contextmanager
def tls_server(authority: Authority) -> Iterator[int]:
    """Accept connections with TLS, and close each after the handshake; gives the port."""
    context = authority.server_context()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def try_clickhouse(port: int) -> None:
    list_tables(ClickHouse(f"https://127.0.0.1:{port}"), 10)


def try_storage(port: int) -> None:
    options = S3Options(endpoint=f"https://127.0.0.1:{port}", access_key_id="a", secret_access_key="b", pauses=())
    open_storage("s3://exports", options).check("exports/")


def try_mail(port: int) -> None:
    parse_server(f"smtps://127.0.0.1:{port}").check(parse_address("exports@waybill.test"))


@pytest.mark.parametrize("connect", [try_clickhouse, try_storage, try_mail])
@pytest.mark.parametrize("reason", CERTIFICATES)
def test_the_reason_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connect: Callable[[int], None], reason: str
) -> None:
    authority = make_authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with (
        tls_server(sign_server(authority, *CERTIFICATES[reason])) as port,
        pytest.raises(Unavailable, match=f"the certificate .*{reason}") as raised,
    ):
        connect(port)

    assert "SSL_CERT_FILE" not in str(raised.value)


def test_kafka_does_not_tell_the_reasons_apart_and_names_both(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    with tls_server(sign_server(authority, *CERTIFICATES["for another host"])) as port:
        settings = load(
            {
                "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}",
                "KAFKA_SECURITY_PROTOCOL": "SSL",
                "SSL_CERT_FILE": str(authority.file),
            }
        )
        with pytest.raises(ConnectionError, match=r"the certificate is not trusted.*brokers' host names in it"):
            check_topics(settings, "export-requests")
