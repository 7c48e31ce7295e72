"""Where the client of ClickHouse connects to, and as whom."""

import pytest

from cli import build
from config.settings import load
from pipeline.read.connect import make_options


@pytest.mark.parametrize(
    ("url", "interface", "host", "port", "path", "database"),
    [
        ("https://ch.example.com", "https", "ch.example.com", 443, "", "default"),
        ("http://ch", "http", "ch", 80, "", "default"),
        ("https://ch:9443", "https", "ch", 9443, "", "default"),
        ("http://ch:8443/langfuse", "http", "ch", 8443, "", "langfuse"),
        ("https://[::1]:9443?pathname=/clickhouse", "https", "::1", 9443, "/clickhouse", "default"),
    ],
)
def test_scheme_host_port_and_path_are_those_of_the_url(
    url: str, interface: str, host: str, port: int, path: str, database: str
) -> None:
    options = make_options(build.clickhouse(load({"CLICKHOUSE_URL": url})))

    assert (options["interface"], options["host"], options["port"]) == (interface, host, port)
    assert (options["proxy_path"], options["database"]) == (path, database)


def test_credentials_in_the_url_replace_those_of_the_settings() -> None:
    own = {"CLICKHOUSE_USER": "general", "CLICKHOUSE_PASSWORD": "hush"}
    url = {"CLICKHOUSE_URL": "http://reader:p%40ss@ch:8123"}

    options = make_options(build.clickhouse(load(own | url)))
    assert (options["username"], options["password"]) == ("reader", "p@ss")

    options = make_options(build.clickhouse(load(own | {"CLICKHOUSE_URL": "http://ch:8123"})))
    assert (options["username"], options["password"]) == ("general", "hush")
