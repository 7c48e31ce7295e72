"""Reads the URLs of settings, and hides their passwords; no error contains a part of a URL."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from config.database_url import read_address
from config.names import is_host

MASK = "**********"
_TUNING = frozenset(
    {
        *("application", "request_timeout", "max_open_connections", "compression_request", "compression_response"),
        *("log_level", "keep_alive_enabled", "keep_alive_idle_socket_ttl"),
    }
)
"""Parameters of a ClickHouse URL that tune Langfuse's client; Waybill's client needs none of them."""
_PASSWORD = re.compile(r"(\w[\w+.-]*://[^/?#:\s]*:)[^\s]*@")
_SECRET_PARAMETER = re.compile(
    r"((?:^|[?&])(?:\w*password|\w+_secret|scram_\w+_key|sig|[\w-]*signature|\w*token|\w*api_?key)=)[^&\s]*",
    re.IGNORECASE,
)

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d+")


def mask_password(url: str) -> str:
    """Return a URL with its password replaced, also in its parameters; other text stays as it is."""
    return _SECRET_PARAMETER.sub(rf"\1{MASK}", _PASSWORD.sub(rf"\1{MASK}@", url))


def _check_address(value: str) -> None:
    """Raise ValueError unless the URL has a host and a valid port; the text contains no part of the URL."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        # The original error may quote a part of the password.
        raise ValueError(
            "has a port that is no number from 1 to 65535, or a password whose special characters are not "
            "percent-encoded"
        ) from None
    if not parts.hostname:
        raise ValueError("has no host")
    if not is_host(parts.hostname):
        raise ValueError("has a host that is not a valid host name: is the URL complete, and percent-encoded?")
    if port == 0:
        raise ValueError("has port 0: ports are numbers from 1 to 65535")


def read_http(value: str) -> str:
    """Return an HTTP URL without a slash at its end; raises ValueError for any other text."""
    if not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    _check_address(value)
    return value.rstrip("/")


def read_store(value: str) -> str:
    """Return the URL of an object store without a slash at its end; raises ValueError for any other text."""
    address = read_http(value)
    if "?" in value or "#" in value:
        raise ValueError(
            "has a query or a fragment: if it is a SAS of Azure, remove it, because the account and its key are used"
        )
    return address


def read_token_endpoint(value: str) -> str:
    """Return the URL of an OAuth 2 token endpoint as it is; raises ValueError for any other text."""
    read_http(value)
    if "@" in urlsplit(value).netloc:
        raise ValueError("contains a user: set the client id and the client secret instead")
    return value


def read_image(value: str) -> str:
    """Return the HTTPS URL of an image in emails; raises ValueError for any other text."""
    if not value.startswith("https://"):
        raise ValueError("must start with https://, because email programs load no other images")
    read_http(value)
    if "@" in urlsplit(value).netloc:
        raise ValueError("contains a user: everybody who gets an email reads the URL")
    if re.search(r"[\s<>\"]", value):
        raise ValueError("has a blank, a quote or a bracket that is not percent-encoded")
    return value


@dataclass(frozen=True)
class ClickHouseUrl:
    """The parts of a ClickHouse URL, with the meaning that they have for Langfuse's client.

    `address` is the URL of the HTTP interface: scheme, host, port and path. A part that the URL lacks is None.
    """

    address: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None


def read_clickhouse(value: str) -> str:
    """Return the URL of a ClickHouse server; raises ValueError for any other text, and for unknown parameters."""
    read_http(value)
    parts = urlsplit(value)
    if "@" in parts.path + parts.query or parts.fragment:
        raise ValueError("has a password whose special characters are not percent-encoded")
    if "/" in parts.path.strip("/"):
        raise ValueError(
            "has a path of several parts: the path is the name of the database; write the path of a gateway as "
            "?pathname=/path"
        )
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name != "pathname" and name not in _TUNING:
            raise ValueError(f"has the parameter {name[:40]!r}, which is not supported; pathname is")
    return value


def split_clickhouse(value: str) -> ClickHouseUrl:
    """Split a URL that `read_clickhouse` accepts.

    The path is the name of the database. The path of a gateway is the parameter `pathname`. Without a port, the URL
    means that of its scheme: 80 or 443.
    """
    parts = urlsplit(value)
    path = dict(parse_qsl(parts.query)).get("pathname", "").strip("/")
    host = parts.netloc.rpartition("@")[2]
    return ClickHouseUrl(
        address=f"{parts.scheme}://{host}" + (f"/{path}" if path else ""),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        database=unquote(parts.path.strip("/")) or None,
    )


def read_database(value: str) -> str:
    """Return the URL of a database that Waybill can open; raises ValueError for any other text."""
    read_address(value)
    return value


def read_mail(value: str) -> str:
    """Return the URL of a mail server, or of a region of SES; raises ValueError for any other text."""
    if value.startswith("ses://"):
        if not _REGION.fullmatch(value.removeprefix("ses://").rstrip("/")):
            raise ValueError("must name a region and nothing else after ses://, such as ses://us-east-1")
        return value.rstrip("/")
    if not value.startswith(("smtp://", "smtps://")):
        raise ValueError("must start with smtp://, smtps:// or ses://")
    _check_address(value)
    return value


def read_storage(value: str) -> str:
    """Return an fsspec URL without a slash at its end; raises ValueError for any other text."""
    if "://" not in value:
        raise ValueError("must be an fsspec URL such as file:///var/exports or s3://bucket/prefix")
    return value.rstrip("/")
