"""A server of another kind at the address of a setting is reported with the setting, in words of our own."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from cli import build
from config.errors import Unavailable
from config.settings import load
from notify.address import parse_address
from notify.smtp_url import parse_server
from pipeline.storage import AzureOptions, GoogleOptions, PartOptions, S3Options, open_storage
from runtime.database import reading
from tests.services.gcs import make_credentials, make_key


def answer_200(body: bytes) -> bytes:
    """A response of a server that closes the connection."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)


TOKEN = answer_200(b'{"access_token": "geheim", "expires_in": 3600}')
PAGE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<h1>Hello</h1>\r\n"
OF_LIBRARIES = re.compile(r"\[SSL|_ssl\.c|psycopg|Errno|unexpectedly")


@contextlib.contextmanager
def server(answer: bytes) -> Iterator[int]:
    """Read something from each connection, send an answer, and close it; gives the port."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    client.recv(65_536)
                    client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def try_database(port: int, parameters: str = "") -> None:
    engine = build.engine(load({"DATABASE_URL": f"postgresql://u:geheim@127.0.0.1:{port}/db{parameters}"}))
    with reading(engine):
        pass


def try_database_with_tls(port: int) -> None:
    try_database(port, "?sslmode=require")


def try_storage(port: int) -> None:
    options = S3Options(endpoint=f"http://127.0.0.1:{port}", access_key_id="a", secret_access_key="b", pauses=())
    open_storage("s3://exports", options).check("exports/")


def try_azure(port: int) -> None:
    endpoint = f"http://127.0.0.1:{port}"
    options = AzureOptions(endpoint=endpoint, account="a", key="Z2VoZWlt", parts=PartOptions(pauses=()))
    storage = open_storage("abfs://exports", options)
    with pytest.raises(Unavailable, match="is not Azure Blob Storage"):
        storage.list_uploads("", datetime.now(UTC))
    storage.check("exports/")


def try_google(port: int) -> None:
    endpoint = f"http://127.0.0.1:{port}"
    options = GoogleOptions(
        endpoint=endpoint, credentials=make_credentials(make_key(), endpoint), parts=PartOptions(pauses=())
    )
    open_storage("gs://exports", options).size("exports/x")


def try_mail(port: int) -> None:
    parse_server(f"smtps://127.0.0.1:{port}").check(parse_address("exports@waybill.test"))


@pytest.mark.parametrize(
    ("connect", "answer", "reason"),
    [
        (try_database, b"", "are host and port of DATABASE_URL right"),
        (try_database, PAGE, "are host and port of DATABASE_URL right"),
        (try_database_with_tls, b"", "are host and port of DATABASE_URL right"),
        (try_storage, PAGE, "HTTP status 404.*is LANGFUSE_S3_BATCH_EXPORT_ENDPOINT the URL of an S3 interface"),
        (
            try_azure,
            answer_200(b"<h1>Hello</h1>"),
            "not Azure Blob Storage.*is LANGFUSE_S3_BATCH_EXPORT_ENDPOINT right",
        ),
        (try_google, TOKEN, "is not Google Cloud Storage.*is LANGFUSE_S3_BATCH_EXPORT_ENDPOINT right"),
        (try_google, answer_200(b"<h1>Hello</h1>"), "token endpoint of Google answered without a token"),
        (try_google, answer_200(b"[]"), "token endpoint of Google answered without a token"),
        (try_google, TOKEN.replace(b"3600", b"null"), "is not Google Cloud Storage"),
        (try_google, TOKEN.replace(b"3600", b"1e99"), "token endpoint of Google answered without a token"),
        (try_google, TOKEN.replace(b"geheim", b"ge\\nim"), "token endpoint of Google answered without a token"),
        (try_mail, b"", r"TLS failed.*is SMTP_CONNECTION_URL right"),
    ],
)
def test_the_setting_is_named(connect: Callable[[int], None], answer: bytes, reason: str) -> None:
    with server(answer) as port, pytest.raises(Unavailable, match=reason) as raised:
        connect(port)

    assert not OF_LIBRARIES.search(str(raised.value))
    assert "geheim" not in str(raised.value)
