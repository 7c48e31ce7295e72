r"""Writes the characters themselves where JSON text has `\uXXXX` escapes."""

import unicodedata

import polars as pl

# An escaped backslash, a surrogate pair, or one escape: whatever comes first from the left in valid JSON text.
_ESCAPE = r"\\(?:\\|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4})"


def unescape(texts: pl.Series) -> pl.Series:
    r"""Replace the `\uXXXX` escapes in JSON texts by what they stand for; each text keeps its JSON value.

    Quotes, backslashes and control characters stay escaped, or the text would mean something else; lone surrogates
    stay too, for UTF-8 can't hold them. All cells must be valid JSON or null.
    """
    escapes = texts.str.extract_all(_ESCAPE).explode(empty_as_null=False).unique().drop_nulls()
    table = {escape: text for escape in escapes if (text := _plain(escape)) is not None}
    # Found and kept, an escaped backslash hides what follows it from the other patterns.
    return texts.str.replace_many({**table, r"\\": r"\\"}) if table else texts


def _plain(escape: str) -> str | None:
    """Return the character that an escape stands for, or None where the escape has to stay."""
    if escape == r"\\":
        return None
    units = [int(unit, 16) for unit in escape.split(r"\u")[1:]]
    if len(units) == 1:
        (code,) = units
    else:
        code = 0x10000 + ((units[0] - 0xD800) << 10) + (units[1] - 0xDC00)
    character = chr(code)
    stays = character in '"\\' or unicodedata.category(character) in {"Cc", "Cs"}
    return None if stays else character
