from pathlib import Path
from typing import get_args

import pytest

from pipeline.compress import COMPRESSORS
from pipeline.encode import ENCODERS, cells
from pipeline.encode.cells import PIECE_BYTES
from pipeline.request import ExportQuery
from pipeline.types import CODECS, FORMATS, Column, Kind, OutputOptions, choose_encoding
from tests.oracle.cells import same_cell
from tests.oracle.files import read
from tests.unit.pipeline.encode.rows import batch, encoded, every_kind, sliced

DOCUMENT = Path(__file__).parents[4] / "docs/exports.md"
TEXT = (Column("id", Kind.TEXT),)


def test_every_format_has_an_encoder() -> None:
    assert list(ENCODERS) == list(FORMATS)
    assert len({each.extension for each in FORMATS.values()}) == len(FORMATS)


def test_every_codec_has_a_compressor_and_can_be_requested() -> None:
    assert list(COMPRESSORS) == list(CODECS) == list(get_args(ExportQuery.model_fields["compression"].annotation))


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_documented_and_the_oracle_reads_it(form: str) -> None:
    (row,) = read(encoded(form, TEXT, [batch(TEXT, id=["a"])]), form).rows
    assert same_cell("a", row["id"], form, neutralised=True)
    assert f"`{form}`" in DOCUMENT.read_text()


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_encodes_a_batch_without_rows(form: str) -> None:
    empty = batch(TEXT, id=[])
    assert read(encoded(form, TEXT, [empty]), form).rows == []
    some = batch(TEXT, id=["a"])
    assert encoded(form, TEXT, [some, empty]) == encoded(form, TEXT, [some])


@pytest.mark.parametrize("form", ["CSV", "JSON", "JSONL"])
def test_a_large_batch_is_written_in_pieces_with_the_same_bytes_as_small_ones(form: str) -> None:
    rows = [f"{number} {'x' * 1000}" for number in range(6000)]
    batches = [batch(TEXT, id=rows)]
    chunks = list(ENCODERS[form](TEXT, iter(batches), choose_encoding(form, None, OutputOptions())))
    assert max(map(len, chunks)) < PIECE_BYTES * 1.1
    small = [batch(TEXT, id=rows[start : start + 1000]) for start in range(0, 6000, 1000)]
    assert b"".join(chunks) == encoded(form, TEXT, small)


@pytest.mark.parametrize("form", ["CSV", "JSON", "JSONL"])
@pytest.mark.parametrize("piece", [1, 300, 20_000])
def test_pieces_of_any_size_have_the_same_bytes(form: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    columns, values = every_kind(100)
    whole = batch(columns, **values)
    wanted = encoded(form, columns, [whole])
    monkeypatch.setattr(cells, "PIECE_BYTES", piece)
    assert encoded(form, columns, [whole]) == wanted
    assert encoded(form, columns, [whole.slice(0, 0), *sliced(whole, [1, 50])]) == wanted
