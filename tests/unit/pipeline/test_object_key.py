from datetime import UTC, datetime

import pytest

from pipeline.object_key import find_exports, make_key, manifest_key
from pipeline.types import CODECS, FORMATS, OutputOptions, choose_encoding

CREATED = datetime(2026, 3, 4, tzinfo=UTC)


@pytest.mark.parametrize("compression", CODECS)
@pytest.mark.parametrize("form", FORMATS)
def test_the_export_of_a_key_is_found_for_every_format_and_codec(form: str, compression: str) -> None:
    extension = choose_encoding(form, compression, OutputOptions()).extension
    key = make_key("a/b/", CREATED, "traces", project_id="p/1", export_id="e", extension=extension)
    assert find_exports(key) == find_exports(manifest_key(key)) == {"e": "p/1"}


def test_ids_with_dashes_can_be_split_in_more_than_one_way() -> None:
    assert find_exports("a/b/17-lf-traces-export-p%2F1-x-y.csv.gz") == {"x-y": "p/1", "y": "p/1-x"}


@pytest.mark.parametrize("key", ["17-lf-traces-export-p-e.exe", "17-lf-traces-export-p-e.csv.zip", "notes.csv", ""])
def test_other_keys_belong_to_no_export(key: str) -> None:
    assert find_exports(key) == {}
