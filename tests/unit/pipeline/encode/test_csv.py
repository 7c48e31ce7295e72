import csv
import io
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from pipeline.types import Column, Kind
from tests.unit.pipeline.encode.rows import AWKWARD, batch, encoded, every_kind, sliced

csv.field_size_limit(1 << 30)

TEXT = (Column("a", Kind.TEXT), Column("b", Kind.TEXT))


def parsed(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))


def cell(kind: Kind, value: Any, *, neutralise: bool = True) -> str:
    """The one cell, as its bytes stand in the file."""
    columns = (Column("c", kind), Column("end", Kind.BOOL))
    data = encoded("CSV", columns, [batch(columns, c=[value], end=[True])], neutralise=neutralise)
    return data.decode().removeprefix("c,end\r\n").removesuffix(",true\r\n")


def test_a_file_is_written_to_the_letter() -> None:
    columns = (
        Column("id", Kind.TEXT),
        Column("at", Kind.INSTANT),
        Column("n", Kind.INTEGER),
        Column("ok", Kind.BOOL),
        Column("tags", Kind.LIST),
        Column("input", Kind.MAYBE_JSON),
        Column("a,b", Kind.DECIMAL),
    )
    rows = batch(
        columns,
        id=["x", 'say "hi"'],
        at=[datetime(2026, 1, 2, 3, 4, 5, 6000, UTC), None],
        n=[2**63 - 1, None],
        ok=[True, False],
        tags=[["a", "b"], None],
        input=[(r'{"a":"\u00e9\n"}', True), (r"\u00e9", False)],
        **{"a,b": [Decimal("1.5"), None]},
    )
    assert encoded("CSV", columns, [rows]).decode() == (
        'id,at,n,ok,tags,input,"a,b"\r\n'
        'x,2026-01-02T03:04:05.006Z,9223372036854775807,true,"[""a"",""b""]","{""a"":""é\\n""}",1.5\r\n'
        '"say ""hi""",,,false,,\\u00e9,\r\n'
    )


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.JSON, Kind.INTEGER])
def test_a_null_in_the_only_column_is_a_line_that_readers_do_not_skip(kind: Kind) -> None:
    columns = (Column("c", kind),)
    assert encoded("CSV", columns, [batch(columns, c=[None, None])]) == b'c\r\n""\r\n""\r\n'


def test_a_byte_order_mark_comes_first_once_if_wanted() -> None:
    batches = [batch(TEXT, a=["é"], b=["x"])] * 2

    marked, plain = (encoded("CSV", TEXT, batches, bom=bom) for bom in (True, False))

    assert marked == b"\xef\xbb\xbf" + plain
    assert [encoded(name, TEXT, batches, bom=True)[:1] for name in ("JSON", "JSONL")] == [b"[", b"{"]


def test_without_rows_there_is_a_header() -> None:
    assert encoded("CSV", TEXT, []) == b"a,b\r\n"
    assert encoded("CSV", TEXT, [batch(TEXT, a=[], b=[])]) == b"a,b\r\n"


def test_null_and_empty_text_stay_apart() -> None:
    data = encoded("CSV", TEXT, [batch(TEXT, a=[None, "", None], b=["", None, None])])
    assert data == b'a,b\r\n,""\r\n"",\r\n,\r\n'


@pytest.mark.parametrize("text", [text for text in AWKWARD if text])
def test_awkward_text_comes_back(text: str) -> None:
    data = encoded("CSV", TEXT, [batch(TEXT, a=[text], b=["end"])], neutralise=False)
    assert parsed(data) == [["a", "b"], [text, "end"]]


def test_every_kind_comes_back() -> None:
    columns, values = every_kind(200)
    data = encoded("CSV", columns, list(sliced(batch(columns, **values), [0, 1, 50])))
    head, *rows = parsed(data)
    assert head == [column.name for column in columns]
    assert len(rows) == 200
    for place, column in enumerate(columns):
        for row, value in zip(rows, values[column.name], strict=True):
            assert same(column.kind, row[place], value)


READ: dict[Kind, Callable[[str], Any]] = {
    Kind.BOOL: {"true": True, "false": False}.__getitem__,
    Kind.INTEGER: int,
    Kind.NUMBER: float,
    Kind.DECIMAL: Decimal,
    Kind.INSTANT: datetime.fromisoformat,
    Kind.LIST: json.loads,
}


def same(kind: Kind, text: str, value: Any) -> bool:
    if value is None:
        return text == ""
    if kind is Kind.TEXT:
        return text in {value, "'" + value}
    return bool(READ.get(kind, str)(text) == value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(math.inf, "Infinity"), (-math.inf, "-Infinity"), (math.nan, "NaN"), (None, "")],
)
def test_numbers_that_json_lacks_are_words(value: float | None, text: str) -> None:
    assert cell(Kind.NUMBER, value) == text


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (-100.0, "-100"), (-0.0, "0"), (0.5, "0.5"), (10.01, "10.01")])
def test_a_whole_number_has_no_decimal_places(value: float, text: str) -> None:
    assert cell(Kind.NUMBER, value) == text


def test_zeros_have_no_sign_in_several_rows() -> None:
    columns = (Column("n", Kind.NUMBER),)
    assert encoded("CSV", columns, [batch(columns, n=[-0.0, -1.5, 0.0])]) == b"n\r\n0\r\n-1.5\r\n0\r\n"


def test_finite_numbers_beside_an_infinite_one_keep_every_digit() -> None:
    columns = (Column("n", Kind.NUMBER),)
    data = encoded("CSV", columns, [batch(columns, n=[math.inf, 0.1 + 0.2, 1e300, 5e-324, None])])
    assert [float(row[0]) for row in parsed(data)[1:-1]] == [math.inf, 0.1 + 0.2, 1e300, 5e-324]


@pytest.mark.parametrize("form", ["CSV", "JSON", "JSONL"])
@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        (datetime(2026, 1, 1, 0, 0, 0, 1, UTC), "2026-01-01T00:00:00.000Z"),
        (datetime(2026, 1, 1, 0, 0, 0, 123_999, UTC), "2026-01-01T00:00:00.123Z"),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), "1969-12-31T23:59:59.999Z"),
        (datetime(1955, 11, 5, 6, 15, 0, 7, UTC), "1955-11-05T06:15:00.000Z"),
    ],
)
def test_instants_are_cut_to_milliseconds(form: str, instant: datetime, expected: str) -> None:
    at = pa.RecordBatch.from_arrays([pa.array([instant], pa.timestamp("us", tz="UTC"))], names=["at"])
    assert expected in re.split('[,"\r\n]', encoded(form, (Column("at", Kind.INSTANT),), [at]).decode())


@pytest.mark.parametrize("form", ["CSV", "JSON", "JSONL"])
@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        ("1.5", "1.5"),
        ("10", "10"),
        ("0", "0"),
        ("-0.50", "-0.5"),
        ("0.000000000001", "0.000000000001"),
        ("100.01", "100.01"),
    ],
)
def test_decimals_have_no_zeros_at_their_end(form: str, cost: str, expected: str) -> None:
    columns = (Column("n", Kind.INTEGER), Column("c", Kind.DECIMAL))
    data = encoded(form, columns, [batch(columns, n=[7], c=[Decimal(cost)])])
    assert re.findall(r"(-?[\d.]+)\W*$", data.decode()) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\tx", "\rx", "\nx", "-", "+5 apples", "-1e", "=-5", "\t", "\n-5"),
        *(
            "\uff1d1+1",
            "\uff0b1",
            "\uff0d1",
            "\uff20SUM(A1)",
            " =1",
            "   +A1",
            "\u00a0=1",
            "\u3000\uff1d1",
            "\ufeff=1",
            " \n=1",
            "\x0b=1",
            "\x00=1",
        ),
        *("- item", "@handle", " - item", "- cmd|' /C calc'!A0"),
    ],
)
def test_a_cell_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert parsed(f"{cell(Kind.TEXT, text)}\r\n".encode()) == [["'" + text]]
    assert parsed(f"{cell(Kind.MAYBE_JSON, (text, False))}\r\n".encode()) == [["'" + text]]


@pytest.mark.parametrize(
    "text", ["-5", "+1.5e3", "-.5", "-0", "+7.", " -5", "5-3", "a=b", "'=1", " x=1", "1@x", "  ", "é=1"]
)
def test_numbers_and_harmless_text_stay(text: str) -> None:
    assert cell(Kind.TEXT, text) == text


def test_special_cells_of_several_columns_stay_in_their_places() -> None:
    columns = (Column("a", Kind.TEXT), Column("b", Kind.MAYBE_JSON), Column("c", Kind.JSON))
    rows = batch(
        columns,
        a=["=1", "plain", "@2", None],
        b=[("+x", False), (r'["\u00e9"]', True), ("plain", False), ("-y", False)],
        c=["1", r'"\u00e8"', r'"\u00ea"', None],
    )
    assert parsed(encoded("CSV", columns, [rows]))[1:] == [
        ["'=1", "'+x", "1"],
        ["plain", '["é"]', '"è"'],
        ["'@2", "plain", '"ê"'],
        ["", "'-y", ""],
    ]


def test_neutralising_can_be_turned_off() -> None:
    assert cell(Kind.TEXT, "=1+1", neutralise=False) == "=1+1"


def test_names_are_neutralised_too() -> None:
    columns = (Column("=cmd", Kind.BOOL), Column("-5", Kind.BOOL), Column("^.*$", Kind.BOOL), Column("*", Kind.BOOL))
    assert encoded("CSV", columns, []) == b"'=cmd,-5,^.*$,*\r\n"
    assert encoded("CSV", columns, [], neutralise=False) == b"=cmd,-5,^.*$,*\r\n"
