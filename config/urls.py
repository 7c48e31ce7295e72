"""Reads the URLs of settings, and hides their passwords; no error contains a part of a URL."""

import re
from urllib.parse import urlsplit

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

MASK = "**********"
_PASSWORD = re.compile(r"(\w[\w+.-]*://[^/?#@:]*:)[^\s]*@")


def mask_password(url: str) -> str:
    """Return a URL with its password replaced; other text stays as it is."""
    return _PASSWORD.sub(rf"\1{MASK}@", url)


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
    if port == 0:
        raise ValueError("has port 0: ports are numbers from 1 to 65535")


def read_http(value: str) -> str:
    """Return an HTTP URL without a slash at its end; raises ValueError for any other text."""
    if not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    _check_address(value)
    return value.rstrip("/")


def read_database(value: str) -> str:
    """Return the URL of a database that SQLAlchemy can open; raises ValueError for any other text."""
    try:
        backend = make_url(value).get_backend_name()
    except (ArgumentError, ValueError):
        # The original error may quote a part of the password.
        raise ValueError(
            "is not a database URL: use postgresql://user:password@host:5432/name or sqlite:///…"
        ) from None
    if backend not in {"postgresql", "postgres", "sqlite"}:
        raise ValueError("must start with postgresql:// or sqlite:///")
    return value


def read_smtp(value: str) -> str:
    """Return the URL of a mail server; raises ValueError for any other text."""
    if not value.startswith(("smtp://", "smtps://")):
        raise ValueError("must start with smtp:// or smtps://")
    _check_address(value)
    return value


def read_storage(value: str) -> str:
    """Return an fsspec URL without a slash at its end; raises ValueError for any other text."""
    if "://" not in value:
        raise ValueError("must be an fsspec URL such as file:///var/exports or s3://bucket/prefix")
    return value.rstrip("/")
