"""Reads the keys of WAYBILL_SECRET_KEY, which encrypt the tokens of links."""

from pydantic import SecretStr

KEY_CHARACTERS = 32
"""The shortest allowed key: 128 random bits have this many characters in hexadecimal."""


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
