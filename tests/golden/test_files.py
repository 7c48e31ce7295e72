"""Exports equal the golden files: byte for byte, and Parquet by values and types."""

import io
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from tests.golden.cases import CASES, ENDINGS, FILES, PARQUET, Case, world
from tests.golden.writer import listed, typed
from tests.services.stacks import Servers
from tests.support.agreement import Filled, fill_databases


@pytest.fixture(scope="module")
def rows(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with servers.stack(tmp_path_factory.mktemp("golden")) as stack, fill_databases(stack, world()) as filled:
        yield filled


def read_golden(case: Case, form: str) -> bytes:
    path = case.path(form)
    assert path.exists(), f"{path.name} is missing: run `python -m tests.golden` and review the new file"
    return path.read_bytes()


@pytest.mark.parametrize("form", [form for form in ENDINGS if form != PARQUET])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_export_equals_its_golden_file_byte_for_byte(rows: Filled, case: Case, form: str) -> None:
    assert rows.file(case.project, case.query, form) == read_golden(case, form)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_parquet_export_has_the_values_and_types_of_its_golden_file(rows: Filled, case: Case) -> None:
    table = pq.read_table(io.BytesIO(rows.file(case.project, case.query, PARQUET)))
    found = [{name: typed(value) for name, value in row.items()} for row in table.to_pylist()]
    assert listed(table.column_names, found) == read_golden(case, PARQUET).decode()


def test_every_golden_file_belongs_to_a_case() -> None:
    assert {path.name for path in FILES.iterdir()} == {case.path(form).name for case in CASES for form in ENDINGS}
