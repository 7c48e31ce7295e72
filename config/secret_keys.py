"""Reads the keys of WAYBILL_SECRET_KEY, which encrypt the tokens of links, and WAYBILL_OPERATOR_TOKEN."""

from pydantic import SecretStr

KEY_CHARACTERS = 32
"""The shortest allowed key or token: 128 random bits have this many characters in hexadecimal."""


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
