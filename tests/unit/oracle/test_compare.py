import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.oracle.cells import neutral, same_cell, unescaped
from tests.oracle.compare import differences
from tests.oracle.files import read
from tests.oracle.values import Bag, Cell, Expected, Json, MaybeJson, Metadata

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAN = float("nan")


def csv_of(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, None),
        ("", ""),
        ("=1+1", "'=1+1"),
        ("-5", "-5"),
        ("-5x", "'-5x"),
        (MaybeJson("@x"), "'@x"),
        (MaybeJson('{"a": "\\u00e9\\u0022"}'), '{"a": "é\\u0022"}'),
        (MaybeJson("not \\u00e9 JSON"), "not \\u00e9 JSON"),
        (True, "true"),
        (2**64, "18446744073709551616"),
        (Decimal("0.10"), "0.1"),
        (NAN, "NaN"),
        (float("-inf"), "-Infinity"),
        (NOON, "2026-03-01T12:00:00.000Z"),
        (NOON + timedelta(microseconds=1999), "2026-03-01T12:00:00.001Z"),
        (["a", "b"], '["a","b"]'),
        (Bag((1.0, NAN)), "[null,1.0]"),
        (Json([{"id": "c"}]), '[{"id":"c"}]'),
        (Metadata({"k": "1"}, parsed=False), '{"k":"1"}'),
        (Metadata({"k": "1"}, parsed=True), '{"k":1}'),
    ],
)
def test_csv_cells_that_are_right(wanted: Cell, found: str | None) -> None:
    assert same_cell(wanted, found, "CSV", neutralised=True)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, ""),
        ("", None),
        ("=1+1", "=1+1"),
        ("a", "A"),
        (True, "True"),
        (2**53 + 1, str(2**53)),
        (Decimal("0.100000000001"), "0.1"),
        (Decimal("1.5"), "1.500"),
        (NOON, "2026-03-01T12:00:00"),
        (NOON, "2026-03-01T12:00:00.000000Z"),
        (NOON, "2026-03-01 12:00:00.000"),
        (MaybeJson('"\\u00e9"'), '"\\u00e9"'),
        (["a", "b"], '["b","a"]'),
        (Bag((1.0, 2.0)), "[1.0]"),
        (Metadata({"k": "1"}, parsed=False), '{"k":1}'),
    ],
)
def test_csv_cells_that_are_wrong(wanted: Cell, found: str | None) -> None:
    assert not same_cell(wanted, found, "CSV", neutralised=True)


@pytest.mark.parametrize(
    ("wanted", "right", "wrong"),
    [
        (MaybeJson('{"a": [1.50, true]}'), '{"a": [1.5, true]}', '"{\\"a\\": [1.50, true]}"'),
        (MaybeJson("plain"), '"plain"', "null"),
        (MaybeJson("12345678901234567890"), "12345678901234567890", "1.2345678901234567e19"),
        (MaybeJson("1"), "1", "true"),
        (
            Metadata({"a": '{"b": 1}', "c": "x"}, parsed=False),
            '{"a": {"b": 1}, "c": "x"}',
            '{"a": "{\\"b\\": 1}", "c": "x"}',
        ),
        (Decimal("0.000000000001"), "0.000000000001", '"0.000000000001"'),
        (NAN, "null", '"NaN"'),
        (None, "null", '""'),
        ("", '""', "null"),
        (NOON, '"2026-03-01T12:00:00.000Z"', '"2026-03-01T12:00:00Z"'),
        (Bag(("a", 2.0)), '[2.0, "a"]', '[2.0, "a", "a"]'),
    ],
)
def test_json_cells(wanted: Cell, right: str, wrong: str) -> None:
    for text, expected in ((right, True), (wrong, False)):
        (row,) = read(f'[{{"x": {text}}}]'.encode(), "JSON").rows
        assert same_cell(wanted, row["x"], "JSON", neutralised=True) is expected


def test_parquet_cells() -> None:
    cells: dict[str, tuple[Cell, Any]] = {
        "instant": (NOON, pa.array([NOON], pa.timestamp("us", "UTC"))),
        "decimal": (Decimal("1.5"), pa.array([Decimal("1.500")], pa.decimal128(18, 3))),
        "text": (MaybeJson('"\\u00e9"'), pa.array(['"é"'])),
        "scores": (Bag((1.0, NAN)), pa.array([[NAN, 1.0]])),
        "json": (Json({"a": 1}), pa.array(['{"a":1}'])),
        "none": (None, pa.array([None], pa.string())),
    }
    target = io.BytesIO()
    pq.write_table(pa.table({name: array for name, (_, array) in cells.items()}), target)

    (row,) = read(target.getvalue(), "PARQUET").rows

    for name, (wanted, _) in cells.items():
        assert same_cell(wanted, row[name], "PARQUET", neutralised=True), name
    assert not same_cell("", row["none"], "PARQUET", neutralised=True)


def test_formulas_are_told_from_numbers() -> None:
    assert [neutral(text) for text in ("+1", "-1.5e3", "+49 30", "@a", "\tx", "a=1")] == [
        *("+1", "-1.5e3", "'+49 30", "'@a", "'\tx", "a=1"),
    ]


def test_escapes_that_json_needs_stay() -> None:
    text = r'"\u0041 \\u0041 \ud83d\ude42 \u0022 \u005c \u000a \ud800"'

    assert unescaped(text) == r'"A \\u0041 🙂 \u0022 \u005c \u000a \ud800"'


def test_a_csv_reader_that_tells_empty_from_null() -> None:
    file = read(csv_of("a,b,c", ',"","x ""y"",\r\nz"', "1,2,"), "CSV")

    assert file.rows == [{"a": None, "b": "", "c": 'x "y",\r\nz'}, {"a": "1", "b": "2", "c": None}]


@pytest.mark.parametrize("data", [b"a,b\r\n1", b"a,b\n1,2\n", b'a\r\n"x"y\r\n', b"a,a\r\n1,2\r\n", b""])
def test_a_file_that_is_not_csv(data: bytes) -> None:
    with pytest.raises((AssertionError, ValueError)):
        read(data, "CSV")


@pytest.mark.parametrize("data", ['{"a":1}', '{"a":1}\n{"b":1}\n', '{"a":1,"a":2}\n', '{"a":NaN}\n'])
def test_a_file_that_is_not_jsonl(data: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        read(data.encode(), "JSONL")


EXPECTED = Expected(("id", "=n"), ({"id": "1", "=n": 1}, {"id": "@2", "=n": None}), ordered=True)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["id,'=n", "1,1", "'@2,"], None),
        (["id,=n", "1,1", "'@2,"], "columns"),
        (["id,'=n", "1,1"], "missing: ['@2']"),
        (["id,'=n", "1,1", "'@2,", "1,1"], "too many: ['1']"),
        (["id,'=n", "'@2,", "1,1"], "order differs from row 0"),
        (["id,'=n", "1,2", "'@2,"], "row '1', column '=n': expected 1, found '2'"),
    ],
)
def test_differences_are_told_in_words(lines: list[str], problem: str | None) -> None:
    found = differences(EXPECTED, csv_of(*lines), "CSV")

    assert (not found) if problem is None else problem in " ".join(found)


def test_an_empty_file_of_objects_has_no_rows() -> None:
    nothing = Expected(("id",), (), ordered=False)

    assert differences(nothing, b"[]", "JSON") == []
    assert differences(nothing, b"", "JSONL") == []
    assert differences(nothing, json.dumps([{"id": "1"}]).encode(), "JSON") == ["1 rows are too many: ['1']"]
