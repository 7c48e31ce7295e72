import json
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.encode.cells import unescape
from pipeline.types import Column, Kind
from tests.unit.pipeline.encode.rows import batch, encoded


def one(text: str) -> str:
    (result,) = unescape(pl.Series([text]))
    assert isinstance(result, str)
    return result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'"\u00e9"', '"é"'),
        (r'"\u00E9\u4f60"', '"é你"'),
        (r'"\ud83d\ude00"', '"😀"'),
        (r'"\uD83D\uDE00x"', '"😀x"'),
        (r'"\u0041\u002f"', '"A/"'),
        (r'"\\u00e9"', r'"\\u00e9"'),
        (r'"\\\u00e9"', r'"\\é"'),
        (r'"\\\\u00e9"', r'"\\\\u00e9"'),
        (r'"C:\\users\\udeadbeef"', r'"C:\\users\\udeadbeef"'),
        (r'"\u0022\u005c\u005C"', r'"\u0022\u005c\u005C"'),
        (r'"\u005cu00e9"', r'"\u005cu00e9"'),
        (r'"\u0000\u000a\u001f\u007f\u0085"', r'"\u0000\u000a\u001f\u007f\u0085"'),
        (r'"\ud83d"', r'"\ud83d"'),
        (r'"\ude00\ud83d"', r'"\ude00\ud83d"'),
        (r'"\ud83d\u00e9"', r'"\ud83dé"'),
        (r'"\ud83d\ud83d\ude00"', r'"\ud83d😀"'),
        (r'"\ud83d\\ude00"', r'"\ud83d\\ude00"'),
        (r'{"\u00e9": "\n\t\"\u00e9\""}', r'{"é": "\n\t\"é\""}'),
    ],
)
def test_escapes_become_characters_where_that_changes_nothing(text: str, expected: str) -> None:
    assert one(text) == expected


def test_one_texts_escapes_are_not_anothers() -> None:
    texts = [r'"\\u00e9"', None, r'"\u00e9"', r'"\ud83d"', r'"\ud83d\ude00"', "1"]
    assert unescape(pl.Series(texts)).to_list() == [r'"\\u00e9"', None, '"é"', r'"\ud83d"', '"😀"', "1"]


UNITS = st.integers(0, 0xFFFF).map(lambda unit: f"\\u{unit:04x}")
PAIRS = st.integers(0x10000, 0x10FFFF).map(
    lambda code: f"\\u{0xD800 + ((code - 0x10000) >> 10):04X}\\u{0xDC00 + ((code - 0x10000) & 0x3FF):04x}"
)
PIECES = st.one_of(
    UNITS,
    PAIRS,
    st.sampled_from(
        [r"\\", r"\"", r"\n", r"\/", "u", "u00e9", "a", "é", "😀", r"\ud83d", r"\ude00", r"\u005c", r"\u0022"]
    ),
    st.characters(codec="utf-8", min_codepoint=0x20, exclude_characters='"\\'),
)
STRINGS = st.lists(PIECES, max_size=30).map(lambda pieces: f'"{"".join(pieces)}"')


@given(st.lists(STRINGS, min_size=1, max_size=8))
def test_the_json_value_stays_the_same_and_no_needless_escape_is_left(texts: list[str]) -> None:
    for before, after in zip(texts, unescape(pl.Series(texts)), strict=True):
        assert json.loads(after) == json.loads(before)
        # what is left, apart from escaped backslashes, is what has to be left
        for escape in re.findall(r"\\(?:\\|u(....))", after):
            code = int(escape, 16) if escape else 0x5C
            assert code < 0x20 or 0x7F <= code < 0xA0 or code in {0x22, 0x5C} or 0xD800 <= code < 0xE000


@given(st.lists(st.tuples(STRINGS, st.booleans()), min_size=1, max_size=8))
def test_only_cells_that_hold_json_are_touched(cells: list[tuple[str, bool]]) -> None:
    columns = (Column("c", Kind.MAYBE_JSON),)
    rows = [json.loads(line)["c"] for line in encoded("JSONL", columns, [batch(columns, c=cells)]).split(b"\n")[:-1]]
    assert rows == [json.loads(text) if is_json else text for text, is_json in cells]
