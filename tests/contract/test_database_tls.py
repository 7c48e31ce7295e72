"""Connections to a PostgreSQL server whose certificate a private authority has signed."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from cli import build
from config.errors import Unavailable
from config.settings import load
from runtime.database import reading
from tests.services import choice, postgres
from tests.services.process import give
from tests.support.certificates import Authority, make_authority, sign_client

CLIENT = "exporter"
"""The role that logs in with a certificate."""


@dataclass(frozen=True)
class Server:
    """A server that offers TLS, with the authority of its certificate."""

    url: str
    authority: Authority


@pytest.fixture(scope="module")
def server(services_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if reason := choice.why_not("postgres"):
        pytest.skip(reason)
    authority = make_authority(tmp_path_factory.mktemp("authority"))
    folder = services_folder / "postgres-tls"
    folder.mkdir()
    for source, name in ((authority.key, "server.key"), (authority.certificate, "server.pem")):
        (folder / name).write_bytes(source.read_bytes())
        (folder / name).chmod(0o600)
        give(folder / name, postgres.server_account())
    tls = {"ssl": "on", "ssl_cert_file": f"{folder}/server.pem", "ssl_key_file": f"{folder}/server.key"}
    rules, trusted = folder / "pg_hba.conf", folder / "clients.pem"
    rules.write_text(f"hostssl all {CLIENT} all cert\nhost all all all trust\n")
    trusted.write_bytes(authority.file.read_bytes())
    tls |= {"ssl_ca_file": str(trusted), "hba_file": str(rules)}
    with postgres.start(folder, settings=postgres.SETTINGS | tls) as running:
        engine = create_engine(make_url(running.url("postgres")).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            connection.execute(text(f"CREATE ROLE {CLIENT} LOGIN"))
        engine.dispose()
        yield Server(running.url("postgres"), authority)


def is_encrypted(url: str) -> bool:
    engine = build.engine(load({"DATABASE_URL": url}))
    try:
        with reading(engine) as connection:
            used = connection.scalar(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
            return bool(used)
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("parameters", "encrypted"),
    [
        ("sslmode=disable", False),
        ("sslmode=require", True),
        ("sslmode=require&sslaccept=accept_invalid_certs&sslcert=/nowhere.pem", True),
        ("sslmode=require&sslcert={ca}", True),
        ("sslaccept=strict&sslcert={ca}", True),
        ("sslmode=verify-full&sslrootcert={ca}", True),
    ],
)
def test_the_parameters_of_prisma_and_of_libpq_encrypt(server: Server, parameters: str, encrypted: bool) -> None:
    assert is_encrypted(f"{server.url}?{parameters.format(ca=server.authority.file)}") is encrypted


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ("sslaccept=strict", "its certificate is not trusted"),
        ("sslaccept=strict&sslcert=/nowhere.pem", "the CA file of sslrootcert, or of sslcert"),
        ("sslmode=verify-full", "its certificate is not trusted.*in the file that SSL_CERT_FILE names"),
        ("sslmode=verify-ca", "sslaccept=strict without either means the CAs of the system"),
        ("sslmode=require&sslcert={certificate}", "its certificate is not trusted"),
    ],
)
def test_a_server_that_is_not_trusted_is_refused_with_the_remedy(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parameters: str, reason: str
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    other = make_authority(tmp_path)

    with pytest.raises(Unavailable, match=reason):
        is_encrypted(f"{server.url}?{parameters.format(certificate=other.file)}")


def test_a_certificate_for_another_host_is_refused_with_the_remedy(server: Server) -> None:
    url = server.url.replace("127.0.0.1", "db.example.com")

    with pytest.raises(Unavailable, match="its certificate is for another host name"):
        is_encrypted(f"{url}?hostaddr=127.0.0.1&sslaccept=strict&sslcert={server.authority.file}")


def test_ssl_cert_file_names_the_authority(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority.file))

    assert is_encrypted(f"{server.url}?sslaccept=strict")
    assert is_encrypted(f"{server.url}?sslmode=verify-full")
    assert is_encrypted(f"{server.url}?sslmode=verify-full&sslrootcert=system")


def client_url(server: Server, certificate: Path, key: Path) -> str:
    url = server.url.replace("waybill@", f"{CLIENT}@")
    return f"{url}?sslmode=verify-full&sslrootcert={server.authority.file}&sslcert={certificate}&sslkey={key}"


def test_a_client_logs_in_with_its_certificate(server: Server) -> None:
    assert is_encrypted(client_url(server, *sign_client(server.authority, CLIENT)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.partition("&sslcert")[0], "requires a client certificate"),
        (lambda url: url.replace(CLIENT, "somebody", 1), "does not exist"),
        (
            lambda url: url.replace(f"{CLIENT}.pem", "other.pem").replace(f"{CLIENT}.key", "other.key"),
            "for this user",
        ),
        (lambda url: url.replace(f"{CLIENT}.pem", "nowhere.pem"), "do sslcert and sslkey in DATABASE_URL name"),
        (lambda url: url.replace(f"{CLIENT}.key", "nowhere.key"), "sslkey in DATABASE_URL can't be read"),
        (lambda url: url.replace(f"{CLIENT}.key", "other.key"), "sslkey in DATABASE_URL does not belong to"),
        (lambda url: url.replace(f"{CLIENT}.key", "open.key"), "make it 0600"),
        (lambda url: url.replace(f"{CLIENT}.key", "encrypted.key"), "sslpassword"),
        (lambda url: url.replace(f"{CLIENT}.key", "text.key"), "sslkey in DATABASE_URL can't be read"),
    ],
)
def test_a_client_certificate_that_can_t_be_used_is_named(
    server: Server, change: Callable[[str], str], reason: str
) -> None:
    url = client_url(server, *sign_client(server.authority, CLIENT))
    _, other = sign_client(server.authority, "other")
    other.with_name("open.key").write_bytes(other.with_name(f"{CLIENT}.key").read_bytes())
    other.with_name("open.key").chmod(0o644)
    other.with_name("text.key").write_text("no key\n")
    other.with_name("text.key").chmod(0o600)
    encrypt = ("openssl", "pkcs8", "-topk8", "-in", other.with_name(f"{CLIENT}.key"), "-passout", "pass:geheim")
    subprocess.run([*encrypt, "-out", other.with_name("encrypted.key")], check=True, capture_output=True)

    with pytest.raises(Unavailable, match=reason):
        is_encrypted(change(url))


def test_a_key_can_have_a_password(server: Server) -> None:
    certificate, key = sign_client(server.authority, CLIENT)
    encrypted = key.with_name("with-password.key")
    encrypt = ("openssl", "pkcs8", "-topk8", "-in", key, "-passout", "pass:p&ss", "-out", encrypted)
    subprocess.run(encrypt, check=True, capture_output=True)

    assert is_encrypted(f"{client_url(server, certificate, encrypted)}&sslpassword=p%26ss")
