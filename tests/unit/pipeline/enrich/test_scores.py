import json
import random
from operator import itemgetter

import pyarrow as pa
import pytest

from pipeline.enrich.scores import SCORES, Cells, ScoreColumn, Scores, make_score_columns
from pipeline.types import CELLS, Column, Kind

LIST = pa.list_(pa.struct([("1", pa.uint16()), ("2", pa.float64()), ("3", pa.string())]))


def batch(*rows: list[tuple[int, float, str | None]]) -> pa.RecordBatch:
    ids = pa.array([str(number) for number in range(len(rows))], pa.string())
    tuples = [[{"1": place, "2": number, "3": text} for place, number, text in row] for row in rows]
    return pa.RecordBatch.from_arrays([ids, pa.array(tuples, LIST)], names=["id", SCORES])


NUMBER = ScoreColumn("n", Column("n", Kind.LIST), numbers=True, texts=False)
TEXT = ScoreColumn("t", Column("t", Kind.LIST), numbers=False, texts=True)
MIXED = ScoreColumn("m", Column("m", Kind.MIXED), numbers=True, texts=True)


def test_each_name_gets_a_column_and_each_row_its_values() -> None:
    made = Scores([NUMBER, TEXT, MIXED])(
        batch([(1, 0.5, None), (1, 2.0, None), (2, 0.0, "a")], [], [(3, 1.0, None), (3, 2.0, 'x"y')], [(1, -1.0, None)])
    )
    assert made.schema.names == ["id", "n", "t", "m"]
    assert made.column("n").to_pylist() == [[0.5, 2.0], None, None, [-1.0]]
    assert made.column("t").to_pylist() == [["a"], None, None, None]
    assert made.column("m").to_pylist() == [None, None, '[1,"x\\"y"]', None]
    made.validate(full=True)


@pytest.mark.parametrize("seed", range(5))
def test_each_of_many_columns_has_what_the_rows_have(seed: int) -> None:
    dice = random.Random(seed)
    columns = [dice.choice([NUMBER, TEXT, MIXED]) for _ in range(200)]
    rows = [[_value(dice, columns, dice.randrange(200)) for _ in range(dice.choice([0, 1, 5]))] for _ in range(40)]
    made = Scores(columns)(batch(*(sorted(row, key=itemgetter(0)) for row in rows)).slice(3))
    made.validate(full=True)
    for place, column in enumerate(columns, 1):
        found = made.column(place).to_pylist()
        cells = [json.loads(cell) if cell and column is MIXED else cell for cell in found]
        values = [[number if text is None else text for at, number, text in row if at == place] for row in rows[3:]]
        assert cells == [each or None for each in values]


def _value(dice: random.Random, columns: list[ScoreColumn], place: int) -> tuple[int, float, str | None]:
    column = columns[place]
    of_text = column.texts and (not column.numbers or dice.random() < 0.5)
    return place + 1, 0.0 if of_text else dice.randrange(9) / 2, dice.choice("abé") if of_text else None


def test_the_schema_does_not_depend_on_the_values() -> None:
    enrich = Scores([NUMBER, TEXT, MIXED])
    full = enrich(batch([(1, 1.0, None), (2, 0.0, "a"), (3, 0.0, "b")]))
    for other in (batch(), batch([]), batch([(3, 1.0, None)])):
        assert enrich(other).schema.types == full.schema.types


def test_a_slice_of_a_batch_gives_its_own_rows_values() -> None:
    whole = batch([(1, 1.0, None)], [(1, 2.0, None), (2, 0.0, "a")], [(1, 3.0, None)])
    made = Scores([NUMBER, TEXT])(whole.slice(1, 2))
    assert made.column("n").to_pylist() == [[2.0], [3.0]]
    assert made.column("t").to_pylist() == [["a"], None]


def test_numbers_that_json_has_no_word_for_are_null_in_a_mixed_column() -> None:
    made = Scores([MIXED])(batch([(1, float("nan"), None), (1, float("inf"), None), (1, 0.0, "")]))
    assert made.column("m").to_pylist() == ['[null,null,""]']


def test_cells_are_the_texts_of_what_a_row_has() -> None:
    whole = batch(
        [(1, 9.0, None)],
        [(1, 0.5, None), (1, 2.0, None), (2, 0.0, 'x"é\n'), (3, 1.0, None), (3, 0.0, "")],
        [],
        [(2, float("nan"), None), (3, float("inf"), None)],
    )
    made = Cells([NUMBER, TEXT, MIXED])(whole.slice(1))
    made.validate(full=True)
    assert made.schema.names == ["id", CELLS]
    cells = [[(cell["place"], cell["text"]) for cell in row] for row in made.column(CELLS).to_pylist()]
    assert cells == [[(1, "[0.5,2]"), (2, '["x\\"é\\n"]'), (3, '[1,""]')], [], [(2, "[null]"), (3, "[null]")]]
    assert Cells([NUMBER])(batch([(1, -0.0, None)])).column(CELLS).to_pylist() == [[{"place": 1, "text": "[0]"}]]
    zeros = Cells([NUMBER])(batch([(1, -0.0, None)], [(1, 0.0, None), (1, -0.0, None)])).column(CELLS).to_pylist()
    assert [cell["text"] for (cell,) in zeros] == ["[0]", "[0,0]"]
    assert Cells([NUMBER])(batch([], [])).column(CELLS).to_pylist() == [[], []]
    assert Cells([NUMBER])(batch()).column(CELLS).to_pylist() == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["id", "input#json"], ["scores.id", "scores.input#json"]),
        (["id", "scores.id"], ["scores.scores.id", "scores.id"]),
        (["10", "", "😀"], ["10", "", "😀"]),
    ],
)
def test_names_that_other_columns_have_are_written_apart(names: list[str], expected: list[str]) -> None:
    made = make_score_columns([(name, ["NUMERIC"]) for name in names], {"id", "input", "input#json"})
    assert [each.column.name for each in made] == expected
    assert [each.score for each in made] == names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Accuracy", "accuracy"], ["Accuracy", "scores.accuracy"]),
        (["ID", "Scores.ID"], ["scores.scores.ID", "Scores.ID"]),
        (["É", "é", "ÉÉ"], ["É", "scores.é", "ÉÉ"]),
        (["A", "a", "scores.A"], ["A", "scores.scores.a", "scores.A"]),
    ],
)
def test_names_that_differ_only_in_case_are_written_apart_where_case_does_not_count(
    names: list[str], expected: list[str]
) -> None:
    found = [(name, ["NUMERIC"]) for name in names]

    assert [each.column.name for each in make_score_columns(found, {"id"}, str.casefold)] == expected
    assert [each.column.name for each in make_score_columns(found, {"id"})] == names


def test_the_types_of_a_name_decide_its_kind() -> None:
    made = make_score_columns(
        [("a", ["BOOLEAN", "NUMERIC"]), ("b", ["CATEGORICAL", "TEXT"]), ("c", ["BOOLEAN", "TEXT"])], set()
    )
    assert [each.column.kind for each in made] == [Kind.LIST, Kind.LIST, Kind.MIXED]
    assert [each.type for each in made] == [pa.list_(pa.float64()), pa.list_(pa.string()), pa.string()]
