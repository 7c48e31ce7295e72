"""Reads the keys of links and of webhooks, and the operators' token, from WAYBILL_… settings."""

import base64
import binascii

from pydantic import SecretStr

KEY_CHARACTERS = 32
"""The shortest allowed key or token: 128 random bits have this many characters in hexadecimal."""

SIGNING_PREFIX = "whsec_"
SIGNING_BYTES = range(24, 65)
"""The lengths of a key that Standard Webhooks allows."""


def check_keys(value: SecretStr) -> SecretStr:
    """Return keys that are separated by commas; raises ValueError, without a key in its text, if one is too short."""
    if any(len(key) < KEY_CHARACTERS for key in split_keys(value)):
        raise ValueError(
            f"each key needs at least {KEY_CHARACTERS} characters (create one with `openssl rand -hex 32`); "
            "separate several keys with commas"
        )
    return value


def split_keys(value: SecretStr) -> list[str]:
    """Return the keys, in their order."""
    return [key.strip() for key in value.get_secret_value().split(",")]


def check_token(value: SecretStr) -> SecretStr:
    """Return the token; raises ValueError, without it in its text, if it is too short or no header can carry it."""
    text = value.get_secret_value()
    if len(text) < KEY_CHARACTERS or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            f"it needs at least {KEY_CHARACTERS} characters, all of them visible ASCII "
            "(create one with `openssl rand -hex 32`)"
        )
    return value


def check_signing_secrets(value: SecretStr) -> SecretStr:
    """Return secrets that are separated by commas; raises ValueError, without a secret in its text, if one is wrong."""
    read_signing_secrets(value)
    return value


def read_signing_secrets(value: SecretStr) -> tuple[bytes, ...]:
    """Return the keys of secrets that are written as Standard Webhooks says, in their order; raises ValueError."""
    return tuple(_read_signing_secret(secret) for secret in split_keys(value))


def _read_signing_secret(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SIGNING_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SIGNING_PREFIX) or len(key) not in SIGNING_BYTES:
        raise ValueError(
            "each secret must be whsec_ and then 24 to 64 random bytes in base64 "
            '(create one with `echo "whsec_$(openssl rand -base64 32)"`); separate several secrets with commas'
        )
    return key
