import json
import math
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from pipeline.types import Column, Kind
from tests.unit.pipeline.encode.rows import AWKWARD, batch, encoded, every_kind, sliced


def lines(data: bytes) -> list[dict[str, Any]]:
    text = data.decode()
    assert not text or text.endswith("\n")
    # only a line feed ends a line of JSONL
    return [json.loads(line, parse_float=Decimal) for line in text.split("\n")[:-1]]


def value(kind: Kind, cell: Any) -> Any:
    columns = (Column("c", kind),)
    data = encoded("JSONL", columns, [batch(columns, c=[cell])])
    (row,) = lines(data)
    assert list(row) == ["c"]
    return row["c"]


def test_a_file_is_written_to_the_letter() -> None:
    columns = (
        Column("id", Kind.TEXT),
        Column("input", Kind.MAYBE_JSON),
        Column('"\\', Kind.INTEGER),
        Column("at", Kind.INSTANT),
        Column("meta", Kind.JSON),
        Column("cost", Kind.DECIMAL),
    )
    rows = batch(
        columns,
        id=["a", None],
        input=[('{"x":\n1.10}', True), ("{x}", False)],
        meta=['{"k":"\\u00e9"}', None],
        at=[datetime.fromisoformat("2026-01-02T03:04:05.006Z"), None],
        cost=[Decimal("0.000000000001"), None],
        **{'"\\': [1, None]},
    )
    first = (
        '{"id":"a","input":{"x": 1.10},"\\"\\\\":1,"at":"2026-01-02T03:04:05.006Z",'
        '"meta":{"k":"é"},"cost":0.000000000001}'
    )
    second = '{"id":null,"input":"{x}","\\"\\\\":null,"at":null,"meta":null,"cost":null}'
    assert encoded("JSONL", columns, [rows]).decode() == f"{first}\n{second}\n"
    assert encoded("JSON", columns, [rows]).decode() == f"[\n{first},\n{second}\n]\n"


def test_without_rows_jsonl_is_empty_and_json_an_empty_array() -> None:
    columns = (Column("a", Kind.TEXT),)
    for batches in ([], [batch(columns, a=[])]):
        assert encoded("JSONL", columns, batches) == b""
        assert json.loads(encoded("JSON", columns, batches)) == []


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_comes_back(text: str | None) -> None:
    assert value(Kind.TEXT, text) == text
    assert value(Kind.MAYBE_JSON, None if text is None else (text, False)) == text


@pytest.mark.parametrize("form", ["JSON", "JSONL"])
def test_every_kind_comes_back(form: str) -> None:
    columns, values = every_kind(200)
    data = encoded(form, columns, list(sliced(batch(columns, **values), [0, 1, 50])))
    rows = lines(data) if form == "JSONL" else json.loads(data, parse_float=Decimal)
    assert [list(row) for row in rows] == [[column.name for column in columns]] * 200
    for column in columns:
        for row, expected in zip(rows, values[column.name], strict=True):
            assert same(column.kind, row[column.name], expected), column


def same(kind: Kind, found: Any, expected: Any) -> bool:
    if expected is None:
        return found is None
    match kind:
        case Kind.NUMBER:
            return bool(float(found) == expected)
        case Kind.INSTANT:
            return bool(found.endswith("Z") and datetime.fromisoformat(found) == expected)
        case Kind.JSON:
            return bool(found == json.loads(expected, parse_float=Decimal))
        case _:
            return bool(found == expected)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_null(number: float) -> None:
    assert value(Kind.NUMBER, number) is None
    assert value(Kind.LIST, [1.5, number]) == [Decimal("1.5"), None]


@pytest.mark.parametrize(("number", "text"), [(1.0, "1"), (-0.0, "0"), (0.5, "0.5"), (None, "null")])
def test_a_whole_number_has_no_decimal_places(number: float | None, text: str) -> None:
    columns = (Column("a", Kind.TEXT), Column("n", Kind.NUMBER), Column("b", Kind.BOOL))
    rows = batch(columns, a=["x"], n=[number], b=[True])
    assert encoded("JSONL", columns, [rows]).decode() == f'{{"a":"x","n":{text},"b":true}}\n'


def test_zeros_have_no_sign_in_several_rows() -> None:
    columns = (Column("n", Kind.NUMBER),)
    assert encoded("JSONL", columns, [batch(columns, n=[-0.0, -1.5, 0.0])]) == b'{"n":0}\n{"n":-1.5}\n{"n":0}\n'


@pytest.mark.parametrize(
    "number", ["12345678901234567890123", "0.1000000000000000055511151231257827", "1E400", "-0", "1.0"]
)
def test_numbers_in_json_cells_keep_every_digit(number: str) -> None:
    columns = (Column("c", Kind.MAYBE_JSON),)
    assert encoded("JSONL", columns, [batch(columns, c=[(number, True)])]).decode() == f'{{"c":{number}}}\n'


def test_raw_line_breaks_between_tokens_do_not_break_the_line() -> None:
    assert value(Kind.MAYBE_JSON, ('{\r\n  "a": [\n1\r]\n}\n', True)) == {"a": [1]}
    assert value(Kind.JSON, '{\n"a": 1\n}') == {"a": 1}


def test_special_cells_of_several_columns_stay_in_their_places() -> None:
    columns = (Column("a", Kind.MAYBE_JSON), Column("b", Kind.MAYBE_JSON), Column("c", Kind.JSON))
    rows = batch(
        columns,
        a=[("one", False), ("[\n1]", True), ("two", False)],
        b=[("[\r2]", True), ("three", False), (r'"\u00e9"', True)],
        c=[r'"\u00e8"', "null", "[\n3]"],
    )
    assert [list(row.values()) for row in lines(encoded("JSONL", columns, [rows]))] == [
        ["one", [2], "è"],
        [[1], "three", None],
        ["two", "é", [3]],
    ]


def test_a_missing_flag_means_text() -> None:
    assert value(Kind.MAYBE_JSON, ("[1]", None)) == "[1]"


@pytest.mark.parametrize("name", ["", "^.*$", "*", "id#json", "0", "é😀", '{"a":1}', "a\nb", "v"])
def test_any_text_can_be_a_name(name: str) -> None:
    columns = (Column("first", Kind.TEXT), Column(name, Kind.LIST), Column("last", Kind.JSON))
    cells: dict[str, list[Any]] = {"first": ["x"], name: [["y"]], "last": ["1"]}
    (row,) = lines(encoded("JSONL", columns, [batch(columns, **cells)]))
    assert row == {"first": "x", name: ["y"], "last": 1}


def test_any_text_can_be_the_name_of_a_spliced_column() -> None:
    columns = (Column('q"\n\u2028', Kind.MAYBE_JSON), Column("\\", Kind.DECIMAL))
    cells: dict[str, list[Any]] = {'q"\n\u2028': [("{}", True)], "\\": [Decimal(1)]}
    (row,) = lines(encoded("JSONL", columns, [batch(columns, **cells)]))
    assert row == {'q"\n\u2028': {}, "\\": 1}


def test_a_score_named_like_a_companion_is_its_own_column() -> None:
    columns = (Column("input", Kind.MAYBE_JSON), Column("input#json", Kind.TEXT))
    rows = batch((columns[1],), **{"input#json": ["score"]})
    both = batch((columns[0],), input=[("[1]", True)])
    joined = type(both).from_arrays(
        [both.column(0), rows.column(0), both.column(1)], names=["input", "input#json", "input#json"]
    )
    assert lines(encoded("JSONL", columns, [joined])) == [{"input": [1], "input#json": "score"}]
