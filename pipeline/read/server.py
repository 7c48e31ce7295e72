"""Reads what must be known of a ClickHouse server, and of the rights of its user, before rows are read."""

from dataclasses import dataclass, field

from clickhouse_connect.driver.client import Client

from pipeline.read.clickhouse_settings import EQUIVALENT, OPTIONAL, REQUIRED, Limit, Limits

MAX_BLOCK_SIZE = "max_block_size"
_SETTINGS = "SELECT name, value, min, max, readonly FROM system.settings WHERE name IN {names:Array(String)}"


@dataclass(frozen=True)
class Server:
    """What is known of a server: `limits` of the settings that exports send."""

    limits: Limits = field(default_factory=Limits)


def read_server(client: Client) -> Server:
    """Read what is known of the client's server; raises the client's errors."""
    names = [*REQUIRED, *OPTIONAL, *(other for other, _ in EQUIVALENT.values()), MAX_BLOCK_SIZE]
    found = client.query(_SETTINGS, parameters={"names": names}).result_rows
    limits = {name: Limit(value, low, high, bool(readonly)) for name, value, low, high, readonly in found}
    return Server(Limits(limits))
