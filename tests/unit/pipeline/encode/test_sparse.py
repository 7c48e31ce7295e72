import csv
import io
import json
import random
from collections.abc import Sequence

import pyarrow as pa
import pytest

from pipeline.encode import cells
from pipeline.types import CELLS, Column, Kind
from tests.unit.pipeline.encode.rows import encoded

CELL = pa.list_(pa.struct([("place", pa.int64()), ("text", pa.string())]))
NAMES = ["id", "10", 'a,b"c', "😀", "", "=1+1", "a\nb", "null"]
TEXTS = ["[0.5]", "[1.0,2.0]", '["a"]', '["x\\"y, z"]', "[]", '["é 😀"]', "[null]"]

Cells = dict[int, str]


def batch(rows: Sequence[Cells]) -> pa.RecordBatch:
    ids = pa.array([f"row {number}" for number in range(len(rows))], pa.string())
    lists = [[{"place": place, "text": row[place]} for place in sorted(row)] for row in rows]
    return pa.RecordBatch.from_arrays([ids, pa.array(lists, CELL)], names=["name", CELLS])


def columns(count: int) -> list[Column]:
    names = [*NAMES, *(f"score {number}" for number in range(count))][:count]
    return [Column("name", Kind.TEXT), *(Column(name, Kind.SPARSE) for name in names)]


def random_rows(count: int, columns: int, seed: int) -> list[Cells]:
    dice = random.Random(seed)
    return [
        {place: dice.choice(TEXTS) for place in dice.sample(range(1, columns + 1), dice.choice([0, 0, 1, 2, columns]))}
        for _ in range(count)
    ]


@pytest.mark.parametrize("count", [2, 8, 64, 65, 200])
@pytest.mark.parametrize(("seed", "piece"), [(0, 1), (1, 300), (2, cells.PIECE_BYTES)])
def test_each_row_has_its_cells_in_their_columns(
    count: int, seed: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "PIECE_BYTES", piece)
    rows = random_rows(50, count, seed)
    made, head = columns(count), [column.name for column in columns(count)]
    batches = [batch(rows).slice(0, 7), batch(rows).slice(7)]

    table = list(csv.reader(io.StringIO(encoded("CSV", made, batches).decode(), newline=""), strict=True))
    assert table[0] == ["'" + name if name.startswith("=") else name for name in head]
    objects = [json.loads(line) for line in encoded("JSONL", made, batches).decode().splitlines()]
    assert objects == json.loads(encoded("JSON", made, batches))
    for number, row in enumerate(rows):
        texts = [row.get(place, "") for place in range(1, count + 1)]
        assert table[number + 1] == [f"row {number}", *texts]
        assert list(objects[number]) == head
        assert list(objects[number].values()) == [f"row {number}", *(json.loads(text or "null") for text in texts)]


def test_a_row_is_written_to_the_letter_with_few_columns_and_with_many() -> None:
    rows = [batch([{2: '["a"]'}, {}])]
    assert encoded("CSV", columns(3), rows).decode().splitlines()[-2:] == ['row 0,,"[""a""]",', "row 1,,,"]
    many = encoded("CSV", columns(100), rows).decode().splitlines()[-2:]
    assert many == ['row 0,,"[""a""]",' + "," * 97, "row 1" + "," * 100]
    first, _ = encoded("JSONL", columns(3), rows).decode().splitlines()
    assert first == '{"name":"row 0","id":null,"10":["a"],"a,b\\"c":null}'


def test_no_rows_make_no_cells() -> None:
    assert encoded("CSV", columns(2), [batch([])]) == b"name,id,10\r\n"
    assert encoded("JSONL", columns(2), [batch([])]) == b""
