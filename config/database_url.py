"""Reads the URL of the Langfuse database, in which Prisma's parameters mean what they mean to Prisma."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from urllib.parse import parse_qsl, quote, unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from config.names import LAST_PORT, is_host

DRIVER = "postgresql+psycopg"
FEWEST_CONNECTIONS = 10
MOST_CONNECTIONS = 30

# The parameters of libpq, without those that have a place of their own in a URL, and those that Waybill sets.
LIBPQ = frozenset(
    {
        "application_name",
        "channel_binding",
        "connect_timeout",
        "gssdelegation",
        "gssencmode",
        "gsslib",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_issuer",
        "oauth_scope",
        "options",
        "passfile",
        "require_auth",
        "requirepeer",
        "scram_client_key",
        "scram_server_key",
        "service",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcertmode",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslkeylogfile",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
        "tcp_user_timeout",
    }
)
# Waybill prepares no statements, so that it needs no special mode behind a pooler; and a statement of an export may
# take hours.
WITHOUT_EFFECT = frozenset({"pgbouncer", "statement_cache_size", "socket_timeout"})
OF_THE_POOL = frozenset({"connection_limit", "pool_timeout", "max_connection_lifetime", "max_idle_connection_lifetime"})
OF_PRISMA = WITHOUT_EFFECT | OF_THE_POOL | {"schema", "sslaccept", "sslidentity"}
_PLACES = ("user", "password", "dbname", "port")
_WHOLE = frozenset(
    {"connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
)
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": ("disable", "random"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "sslnegotiation": ("postgres", "direct"),
    "sslcertmode": ("disable", "allow", "require"),
}

UNREADABLE = (
    "can't be read: use postgresql://user:password@host:5432/name, and percent-encode the special characters of user "
    "and password (`@` is %40, `#` is %23, `/` is %2F, `?` is %3F, `%` is %25), or set DATABASE_HOST, "
    "DATABASE_USERNAME, DATABASE_PASSWORD and DATABASE_NAME instead of DATABASE_URL"
)
_URL = re.compile(r"(?P<authority>[^/?#\s]*)(?:/(?P<name>[^?#@\s]*))?(?:\?(?P<query>[^#@\s]*))?")
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<name>[\w.~%-]*))(?::(?P<port>\d{1,5})?)?")


@dataclass(frozen=True)
class PoolLimits:
    """The connections of one process: how many at most, and seconds to wait for one and to use one at most."""

    most: int = MOST_CONNECTIONS
    wait_seconds: float = 30
    lifetime_seconds: float | None = None


@dataclass(frozen=True)
class DatabaseAddress:
    """Where the Langfuse database is: a URL for SQLAlchemy, the schema of all tables, and the limits of the pool.

    Without a schema the tables are found by the search path of the role.
    """

    url: URL
    schema: str | None = None
    pool: PoolLimits = field(default_factory=PoolLimits)


def read_address(value: str) -> DatabaseAddress:
    """Read a URL as DATABASE_URL has it; raises ValueError, whose text contains no part of user, password or host."""
    scheme, found, rest = value.strip().partition("://")
    backend = scheme.partition("+")[0]
    if found and backend == "sqlite":
        return DatabaseAddress(_read_sqlite(value.strip()))
    if not found or backend not in {"postgresql", "postgres"}:
        raise ValueError("must start with postgresql:// or sqlite:///")
    parts = _URL.fullmatch(rest)
    if parts is None:
        raise ValueError(UNREADABLE)
    login, _, hosts = parts["authority"].rpartition("@")
    user, _, password = login.partition(":")
    given = _read_parameters(parts["query"] or "")
    schema, pool = given.pop("schema", None), _read_pool(given)
    _check_values(given)
    host, port, several = _read_hosts(hosts)
    if "host" in given:  # a Unix socket; Prisma too prefers it to the host of the URL
        host, several = None, {}
    url = URL.create(
        DRIVER,
        username=given.pop("user", None) or unquote(user) or None,
        password=given.pop("password", None) or unquote(password) or None,
        host=host,
        port=_read_port(given.pop("port", "")) or port,
        database=given.pop("dbname", None) or unquote(parts["name"] or "") or None,
        query={**several, **_translate_tls(given)},
    )
    return DatabaseAddress(url, schema, pool)


def write_url(host: str, user: str, password: str, name: str, parameters: str) -> str:
    """Return the URL of these parts; user, password and name may have any characters."""
    user, password, name = (quote(each, safe="") for each in (user, password, name))
    return f"postgresql://{user}:{password}@{host}/{name}" + (f"?{parameters}" if parameters else "")


def check_host(value: str) -> str:
    """Return a host that may have a port, as DATABASE_HOST has it; raises ValueError."""
    try:
        _read_hosts(value.strip())
    except ValueError:
        raise ValueError(
            "must be a host name or an address, with a port if it is not 5432: db.example.com:5432"
        ) from None
    return value.strip()


def check_parameters(value: str) -> str:
    """Return the parameters of a URL without the `?`, as DATABASE_ARGS has them; raises ValueError."""
    parameters = value.strip().removeprefix("?")
    read_address(write_url("host", "user", "password", "name", parameters))
    return parameters


def _read_sqlite(value: str) -> URL:
    try:
        return make_url(value)
    except (ArgumentError, ValueError):
        raise ValueError("is not the URL of an SQLite file: use sqlite:////folder/file.db") from None


def _read_hosts(hosts: str) -> tuple[str | None, int | None, dict[str, tuple[str, ...]]]:
    """Return host and port; or neither, and the parameter that lists the hosts, if there are several."""
    found = []
    for each in hosts.split(","):
        match = _HOST.fullmatch(each)
        if match is None:
            raise ValueError(UNREADABLE)
        host = match["v6"] or unquote(match["name"])
        # A path is the folder of a Unix socket.
        if host and not is_host(host) and not host.startswith("/"):
            raise ValueError("has a host that is not a valid host name: is it spelt right?")
        found.append((host, _read_port(match["port"] or "")))
    if len(found) == 1:
        return found[0][0] or None, found[0][1], {}
    return None, None, {"host": tuple(f"{host}:{port or 5432}" for host, port in found)}


def _read_port(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= LAST_PORT:
        raise ValueError(f"has no valid port, which is a number from 1 to 65535, or {UNREADABLE}")
    return int(text)


def _read_parameters(query: str) -> dict[str, str]:
    """Return the parameters that have values; raises ValueError for one that is unknown."""
    given = {name: value for name, value in parse_qsl(query, keep_blank_values=True) if value}
    known = LIBPQ | OF_PRISMA | set(_PLACES)
    for name in given:
        if name not in known:
            near = get_close_matches(name, sorted(known), 1)
            hint = f": did you mean {near[0]}?" if near else ": remove it"
            raise ValueError(f"has the parameter {name[:40]!r}, which neither PostgreSQL nor Prisma knows{hint}")
    if "sslidentity" in given:
        raise ValueError(
            "has the parameter sslidentity, a PKCS #12 file, which libpq can't read: convert it with `openssl pkcs12`, "
            "and set sslcert and sslkey to the two PEM files, and sslrootcert to the server's CA"
        )
    return {name: value for name, value in given.items() if name not in WITHOUT_EFFECT}


def _read_pool(given: dict[str, str]) -> PoolLimits:
    """Take the parameters of Prisma's pool; 0 means no limit there."""
    limits = {name: _read_whole(name, given.pop(name)) for name in OF_THE_POOL & given.keys()}
    lifetimes = [limits.get("max_connection_lifetime"), limits.get("max_idle_connection_lifetime")]
    return PoolLimits(
        # One export uses several connections, so fewer could block all work.
        most=max(FEWEST_CONNECTIONS, limits.get("connection_limit") or MOST_CONNECTIONS),
        wait_seconds=limits.get("pool_timeout") or PoolLimits.wait_seconds,
        # A connection that is young enough is not idle for too long.
        lifetime_seconds=min((each for each in lifetimes if each), default=None),
    )


def _read_whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"has a parameter {name} that is not a whole number")
    return int(text)


def _check_values(given: Mapping[str, str]) -> None:
    """Raise ValueError for a value that libpq would refuse when it connects, as an error that is not temporary."""
    for name in _WHOLE & given.keys():
        _read_whole(name, given[name])
    for name, choices in _CHOICES.items():
        if given.get(name, choices[0]) not in choices:
            raise ValueError(f"has a parameter {name} that is not one of {', '.join(choices)}")


def _translate_tls(given: Mapping[str, str]) -> dict[str, str]:
    """Return libpq's parameters for those of Prisma, in which `sslcert` is the CA of the server."""
    tls = dict(given)
    accept, mode = tls.pop("sslaccept", None), tls.get("sslmode")
    if accept not in {None, "strict", "accept_invalid_certs"}:
        raise ValueError("has a parameter sslaccept that is neither strict nor accept_invalid_certs")
    if "sslcert" in tls and "sslkey" not in tls:
        if "sslrootcert" in tls:
            raise ValueError(
                "has sslcert and sslrootcert but no sslkey: sslcert is then the server's CA, so remove one of the two, "
                "or add the key of the client's certificate"
            )
        tls["sslrootcert"] = tls.pop("sslcert")
    if accept == "strict":
        if mode in {"disable", "allow"}:
            raise ValueError(f"has sslaccept=strict, which verifies the server, and sslmode={mode}, which does not")
        return {"sslrootcert": "system", **tls, "sslmode": "verify-full"}
    if accept == "accept_invalid_certs":
        if mode in {"verify-ca", "verify-full"}:
            raise ValueError(f"has sslmode={mode}, which verifies the server, and sslaccept={accept}, which does not")
        tls.pop("sslrootcert", None)
    return tls
