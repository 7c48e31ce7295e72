"""Exports, checks and commands reach ClickHouse through gateways, with credentials and with a private authority."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from cli import build
from cli.doctor import diagnose
from config.errors import Unavailable
from config.settings import Settings, load
from pipeline.read import check
from tests.services.stacks import Servers
from tests.support.certificates import make_authority
from tests.support.databases import Databases, open_databases
from tests.support.http_proxy import http_proxy
from tests.support.responses import reply

pytestmark = pytest.mark.clickhouse


@pytest.fixture(scope="module")
def environment(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with servers.stack(tmp_path_factory.mktemp("connections")) as stack:
        yield stack.environment()


@pytest.fixture(scope="module")
def databases(environment: dict[str, str]) -> Iterator[Databases]:
    with open_databases(environment) as databases:
        databases.traces({"id": "t1"}, {"id": "t2"})
        yield databases


def use_everywhere(databases: Databases, settings: Settings) -> None:
    """Reach ClickHouse as an export, as the readiness check, as the doctor and as a command."""
    source = build.clickhouse(settings)
    through = replace(databases, sources=replace(databases.sources, clickhouse=source))
    assert sorted(through.ids()) == ["t1", "t2"]
    build.checks(settings, databases.engine)["clickhouse"]()
    assert check.find_problems(source) == []
    with build.clickhouse_client(settings) as client:
        assert count_traces(client) == 2


def count_traces(client: Client) -> int:
    return int(client.query("SELECT count() FROM traces").result_rows[0][0])


def test_the_path_of_a_gateway_is_kept_by_exports_checks_and_commands(
    databases: Databases, environment: dict[str, str]
) -> None:
    with http_proxy(environment["CLICKHOUSE_URL"]) as proxy:
        proxy.add(lambda request: not request.path.startswith("/clickhouse?"), reply(404, b"refused by the test"))
        use_everywhere(databases, load(environment | {"CLICKHOUSE_URL": f"{proxy.url}?pathname=/clickhouse"}))


def test_a_path_without_pathname_is_the_database(databases: Databases, environment: dict[str, str]) -> None:
    with http_proxy(environment["CLICKHOUSE_URL"]) as proxy:
        proxy.add(lambda request: not request.path.startswith("/?"), reply(404, b"refused by the test"))
        url = f"{proxy.url}/{environment['CLICKHOUSE_DB']}"
        use_everywhere(databases, load(environment | {"CLICKHOUSE_URL": url, "CLICKHOUSE_DB": "elsewhere"}))


def test_the_user_and_the_password_of_the_url_are_sent_by_exports_checks_and_commands(
    databases: Databases, environment: dict[str, str]
) -> None:
    wanted = b64encode("reader@x:p/?#ä".encode()).decode()
    with http_proxy(environment["CLICKHOUSE_URL"]) as proxy:
        proxy.add(lambda request: request.headers["Authorization"] != f"Basic {wanted}", reply(401, b"refused"))
        url = proxy.url.replace("//", "//reader%40x:p%2F%3F%23%C3%A4@")
        use_everywhere(databases, load(environment | {"CLICKHOUSE_URL": url}))


def test_a_private_authority_is_trusted_by_ssl_cert_file(
    databases: Databases, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make_authority(tmp_path)
    with http_proxy(environment["CLICKHOUSE_URL"], authority.server_context()) as proxy:
        settings = load(environment | {"CLICKHOUSE_URL": proxy.url})
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(Unavailable, match="SSL_CERT_FILE"):
            use_everywhere(databases, settings)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CLICKHOUSE_URL", proxy.url)
        assert "SSL_CERT_FILE" in " ".join(diagnose()["clickhouse"].reasons)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        use_everywhere(databases, settings)
