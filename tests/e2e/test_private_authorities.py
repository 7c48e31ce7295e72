"""The main flow with TLS by private authorities on every connection, through a pooler, with minimal rights."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cli import build
from config.settings import load
from config.tables import langfuse
from embedded.sample import fill
from embedded.schema import create_clickhouse_tables
from embedded.stack import Stack as Parts
from runtime.database import open_database
from runtime.migrations import migrate
from tests.e2e.requests import QUICK, ROWS, insert_export, publish_request_to, read_status
from tests.services import choice, secured
from tests.services.postgres import Postgres
from tests.services.secured import SCHEMA, SERVICES, Secured, Service
from tests.support.daemons import Daemon, daemon, eventually, waybill
from tests.support.grants import grant

pytestmark = pytest.mark.slow

TABLES = ("traces", "observations", "dataset_items", "audit_logs")
SCHEMES = {"smtp": "?requireTLS=true", "smtps": ""}
NEEDED = {"consumer": ("database", "clickhouse", "storage", "kafka"), "notify": ("database", "kafka")}
UNTRUSTED = re.compile(r"certificate is not trusted.*: is its certificate authority in the file.* SSL_CERT_FILE\b")


@pytest.fixture(scope="module")
def services(request: pytest.FixtureRequest, services_folder: Path, embedded: Parts) -> Iterator[Secured]:
    for service in ("postgres", "pgbouncer", "kafka", "s3", "smtp"):
        if reason := choice.why_not(service):
            pytest.skip(reason)
    postgres: Postgres = request.getfixturevalue("postgres")
    with secured.start(services_folder / "secured", postgres, embedded.clickhouse) as running:
        yield running


@pytest.fixture(scope="module")
def owner(services: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The database as its owner reaches it, with sample data, and the documented rights of the role."""
    folder = tmp_path_factory.mktemp("owner")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", services.trust(folder)["SSL_CERT_FILE"])
        address = load({"DATABASE_URL": services.owner_url}).database_address
        engine = open_database(address.url, address.schema)
    langfuse.create_all(engine)
    migrate(engine)
    direct = load({"CLICKHOUSE_URL": services.clickhouse, "CLICKHOUSE_DB": services.settings["CLICKHOUSE_DB"]})
    with build.clickhouse_client(direct) as client:
        create_clickhouse_tables(client)
        fill(client, engine, rows=ROWS)
    grant(engine, services.role, SCHEMA)
    yield engine
    engine.dispose()


def make_settings(
    services: Secured, folder: Path, *, without: Service | None = None, scheme: str = "smtps"
) -> dict[str, str]:
    """The settings of the daemons, which trust all authorities but one, with one of the ways to encrypt emails."""
    ports = dict(zip(SCHEMES, services.smtp_ports, strict=True))
    login = services.settings["SMTP_CONNECTION_URL"].partition("://")[2].partition("@")[0]
    mail = f"{scheme}://{login}@127.0.0.1:{ports[scheme]}{SCHEMES[scheme]}"
    return {**services.settings, **QUICK, **services.trust(folder, without=without), "SMTP_CONNECTION_URL": mail}


def start_export(services: Secured, owner: Engine, table: str) -> str:
    """Insert an export and publish its request; returns its id."""
    export_id = insert_export(owner, query={"tableName": table, "filter": [], "orderBy": None})
    publish_request_to(services.kafka.bootstrap, services.settings["WAYBILL_REQUESTS_TOPIC"], export_id)
    return export_id


@pytest.mark.parametrize("scheme", SCHEMES)
def test_exports_complete_and_emails_are_sent(services: Secured, owner: Engine, tmp_path: Path, scheme: str) -> None:
    settings, mailbox = make_settings(services, tmp_path, scheme=scheme), services.mailbox.from_now()
    with daemon("consumer", tmp_path, settings), daemon("notify", tmp_path, settings):
        exports = [start_export(services, owner, table) for table in TABLES]
        eventually(lambda: len(mailbox.mails()) == len(exports), what="an email for each export")
        doctor = waybill("doctor", "--json", environment=settings)

    assert [read_status(owner, each) for each in exports] == ["COMPLETED"] * len(exports)
    assert doctor.returncode == 0, doctor.stdout
    found = json.loads(doctor.stdout)
    assert {service for service in SERVICES if found[service] != "ok"} == {"clickhouse"}
    assert "readonly" in found["clickhouse"]


@pytest.mark.parametrize("service", SERVICES)
def test_the_doctor_names_the_one_service_whose_authority_is_unknown(
    services: Secured, owner: Engine, tmp_path: Path, service: Service
) -> None:
    assert owner is not None
    ran = waybill("doctor", "--json", environment=make_settings(services, tmp_path, without=service))

    found = json.loads(ran.stdout)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert UNTRUSTED.search(found[service]), found
    assert [each for each in SERVICES if "certificate" in found[each]] == [service]


@pytest.mark.parametrize(
    ("command", "service"), [(command, service) for command, needed in NEEDED.items() for service in needed]
)
def test_a_daemon_waits_and_names_the_one_service_whose_authority_is_unknown(
    services: Secured, owner: Engine, tmp_path: Path, command: str, service: Service
) -> None:
    assert owner is not None
    with daemon(command, tmp_path, make_settings(services, tmp_path, without=service), wait=False) as running:
        logged = eventually(lambda: find_warnings(running, "waiting for "), what=f"{command} waits for {service}")
        status, body = running.get("/readyz")

    assert len(logged) == 1
    assert UNTRUSTED.search(logged[0]), logged
    assert logged[0].startswith(f"waiting for {service}: ")
    assert status == 503
    assert UNTRUSTED.search(body), body


def test_a_notifier_keeps_the_email_if_the_authority_of_the_mail_server_is_unknown(
    services: Secured, owner: Engine, tmp_path: Path
) -> None:
    settings, mailbox = make_settings(services, tmp_path), services.mailbox.from_now()
    with daemon("consumer", tmp_path, settings):
        with daemon("notify", tmp_path, make_settings(services, tmp_path, without="mail")) as running:
            start_export(services, owner, "traces")
            logged = eventually(lambda: find_warnings(running, "notice retried: "), what="a notice that is retried")
        assert mailbox.mails() == []
        with daemon("notify", tmp_path, settings):
            eventually(mailbox.mails, what="the email")

    assert UNTRUSTED.search(logged[0]), logged


def find_warnings(running: Daemon, beginning: str) -> list[str]:
    """The warnings of a daemon that begin with a text."""
    return [
        line["message"]
        for line in running.lines()
        if line["level"] == "WARNING" and line["message"].startswith(beginning)
    ]
