"""Makes the clients of ClickHouse: those of exports, of checks and of commands connect in the same way."""

from typing import Any
from urllib.parse import urlsplit

from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client
from urllib3 import HTTPConnectionPool

from pipeline.read.clickhouse_errors import CLIENT_ERRORS, translate_client_error
from pipeline.read.clickhouse_settings import LAZY_MATERIALIZATION, OPTIONAL, TOP_K_THROUGH_JOIN, switch_off
from pipeline.read.client_pool import PooledClient
from pipeline.read.connections import ClickHouse, Tuning
from pipeline.read.server import CONDITION_CACHE, Server, read_server

CONNECT_SECONDS = 10
RECEIVE_SECONDS = 300
PORTS = {"http": 80, "https": 443}
"""The ports that a URL without one means."""


def connect(
    source: ClickHouse, connect_seconds: float = CONNECT_SECONDS, receive_seconds: float = RECEIVE_SECONDS
) -> Client:
    """Connect, and read the server's settings; the caller closes the client. Raises CLIENT_ERRORS."""
    client = get_client(**make_options(source), connect_timeout=connect_seconds, send_receive_timeout=receive_seconds)
    # Otherwise discarded connections stay open until garbage collection.
    client.http.pools.dispose_func = HTTPConnectionPool.close  # type: ignore[attr-defined] # its interface is HTTP
    return client


def open_client(source: ClickHouse) -> PooledClient:
    """Connect for an export, and read what it must know of the server; the caller closes it. Raises CLIENT_ERRORS."""
    client = connect(source)
    try:
        return PooledClient(client, read_server(client))
    except BaseException:
        client.close()
        raise


def list_optional(tuning: Tuning, server: Server) -> dict[str, object]:
    """Return the settings that exports ask for on this server, and that their rows do not depend on."""
    switches = {LAZY_MATERIALIZATION: tuning.lazy_materialization, TOP_K_THROUGH_JOIN: tuning.top_k_through_join}
    wanted = OPTIONAL | switch_off(switches, server.version)
    if tuning.group_by_bytes is not None:
        wanted["max_bytes_before_external_group_by"] = tuning.group_by_bytes
    if tuning.condition_cache is not None:
        wanted[CONDITION_CACHE] = int(tuning.condition_cache)
    return wanted


def make_options(source: ClickHouse) -> dict[str, Any]:
    """Return the options of the client that say where it connects to, and as whom."""
    url = urlsplit(source.url)
    return {
        "interface": url.scheme,
        "host": url.hostname,
        "port": url.port or PORTS[url.scheme],
        "proxy_path": url.path,
        "username": source.user,
        "password": source.password,
        "database": source.database,
        "compress": False,
        "autogenerate_session_id": False,
        "show_clickhouse_errors": "scrub",
        "dedicated_pool": True,
        "client_name": "waybill",
    }


def list_tables(source: ClickHouse, seconds: float) -> set[str]:
    """Return the names of the tables in the database; raises Unavailable, also if that takes longer than `seconds`."""
    try:
        with connect(source, connect_seconds=seconds, receive_seconds=seconds) as client:
            return {row[0] for row in client.query("SHOW TABLES").result_rows}
    except CLIENT_ERRORS as error:
        raise translate_client_error(error) from error
