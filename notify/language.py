"""Reads the languages of emails: the texts in English are the keys, and what a language lacks stays English."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


@dataclass(frozen=True)
class Language:
    """A language: its code, as HTML has it, the translations of English texts, and how numbers are written."""

    code: str
    texts: Mapping[str, str] = field(default_factory=dict)
    thousands: str = ","
    decimal: str = "."

    def translate(self, text: str, **values: str) -> str:
        """Return the text in this language, else in English, with `{name}` replaced by the value of that name."""
        return fill(self.texts.get(text, text), values)

    def format_count(self, count: int) -> str:
        """Format a whole number: `47,112`."""
        return f"{count:,}".replace(",", self.thousands)

    def name_month(self, month: int) -> str:
        """Return the name of a month, from 1."""
        return self.translate(_MONTHS[month - 1])


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace `{name}` in a text by the value of that name; raises KeyError for a name without a value.

    `str.format` would also read attributes of the values.
    """
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


ENGLISH = Language("en")


@cache
def read_language(code: str) -> Language:
    """Return the language with this code; it is one of those that WAYBILL_EMAIL_LANGUAGE accepts."""
    if code == ENGLISH.code:
        return ENGLISH
    stored = json.loads(files("notify").joinpath(f"languages/{code}.json").read_text("utf-8"))
    return Language(code, **stored)
