import re
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.object_key import find_exports, make_former_key, make_key, manifest_key
from pipeline.types import CODECS, FORMATS, OutputOptions, choose_encoding

CREATED = datetime(2026, 3, 4, tzinfo=UTC)
PIECES = ("-", "lf", "-lf-", "export", "-export-", "traces", "a", "7", ".csv", "/", "%", "é", " ")
ID = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)


@pytest.mark.parametrize("compression", CODECS)
@pytest.mark.parametrize("form", FORMATS)
def test_the_export_of_a_key_is_found_for_every_format_and_codec(form: str, compression: str) -> None:
    extension = choose_encoding(form, compression, OutputOptions()).extension
    for make in (make_key, make_former_key):
        key = make("a/b/", CREATED, "traces", project_id="p/1", export_id="e", extension=extension)
        assert find_exports(key) == find_exports(manifest_key(key)) == {"e": "p/1"}


def test_a_file_is_matched_by_the_pattern_of_its_table_and_project() -> None:
    key = make_key("exports/", CREATED, "traces", project_id="cm0p", export_id="cm3e", extension="csv")
    assert key == "exports/1772582400000-cm3e-lf-traces-export-cm0p.csv"
    assert fnmatchcase(key.rpartition("/")[2], "*-lf-traces-export-cm0p.csv")
    assert re.fullmatch(r"\d+-.*lf-traces-export-cm0p\.csv", key.rpartition("/")[2])


@settings(deadline=None, database=None, derandomize=True, max_examples=500)
@given(export=ID, project=ID, table=st.sampled_from(["traces", "dataset_items"]))
def test_a_key_belongs_to_one_export_whatever_its_ids_contain(export: str, project: str, table: str) -> None:
    key = make_key("a/", CREATED, table, project_id=project, export_id=export, extension="csv.gz")
    assert find_exports(key) == find_exports(manifest_key(key)) == {export: project}
    assert key.count("/") == 1
    former = make_former_key("a/", CREATED, table, project_id=project, export_id=export, extension="csv.gz")
    assert former != key
    assert find_exports(former)[export] == project


@pytest.mark.parametrize("table", ["x-export-y", "-lf-", "a/b", "traces"])
def test_a_table_that_does_not_exist_leads_to_no_other_export(table: str) -> None:
    key = make_key("", CREATED, table, project_id="p", export_id="e", extension="csv")
    assert find_exports(key) == {"e": "p"}


def test_ids_with_dashes_can_be_split_in_more_than_one_way_in_former_keys() -> None:
    assert find_exports("a/b/17-lf-traces-export-p%2F1-x-y.csv.gz") == {"x-y": "p/1", "y": "p/1-x"}


@pytest.mark.parametrize(
    "key", ["17-lf-traces-export-p-e.exe", "17-lf-traces-export-p-e.csv.zip", "17-a-lf-lf-b.csv", "notes.csv", ""]
)
def test_other_keys_belong_to_no_export(key: str) -> None:
    assert find_exports(key) == {}
