r"""Cells are JSON where the parsers of Python and JavaScript read JSON: of every table, in every format, by the oracle.

`\uXXXX` escapes in them are written as characters; those of lone surrogates stay.
"""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest

from pipeline.types import FORMATS
from tests.oracle import worlds
from tests.oracle.load import Document
from tests.oracle.pools import EVENTS_ONLY, PROJECTS
from tests.services.stacks import Servers
from tests.support.agreement import Filled, fill_databases
from tests.support.tables import READINGS

pytestmark = pytest.mark.clickhouse

SIZE = 30
JSON = (
    r'{"lone": "\ud83d", "other": "\u00e9\u6570 \ud83d\ude42"}',
    r'"\udc00\u00e9"',
    r'["\uD83D\u0041", "\\ud83d\u00e9", "\\\ud83d"]',
    r'{"\ud83d": 1, "\u00e9": 1e400}',
    "[1e400, -1.5E+999 ,1e-400, 0e999]",
    "1e309",
    "1" * 400,
    f"-{'1' * 400}.5",
    f" [{'9' * 310}e5]\n",
    '{"a": 1, "a": 2, "\\u00e9": 3}',
    '"delete \x7f, byte order mark \ufeff \\u00e9"',
    "[" * 150 + r'"\u00e9"' + "]" * 150,
    '{"a": ' * 150 + "1" + "}" * 150,
)
NOT_JSON = (
    r'{"role": "user", "n": [1.5, true, null], "content": "\u00e9\u6570 \ud83d\ude42 \ud83d',
    r'["\u00e9", {"a": "\\u00e9 \" \u00e',
    r'["\u00e9", fal',
    r'{"\u00e9": {"b": -',
    r'{"\u00e9": [1, 2',
    ' "\\u00e9 \\',
    r"[INST] caf\u00e9",
    r'["\u00e9", and more',
    r'"caf\u00e9" is closed',
    r"C:\users\u00e9",
    '["\\u00e9 \n cut',
    "NaN",
    '{"a": NaN, "b": "\\u00e9"}',
    "[-Infinity]",
    "1e5e5",
    "01e400",
    "1e400.5",
    r'["\ud83d\x"]',
    r'["\ud83d" "\u00e9"]',
    r"[\ud83d]",
    r'["\u1e+55f"]',
    '["\\ud83d\n"]',
    r"\ud83d\u00e9",
    '\ufeff{"a": "\\ud83d"}',
    "[" * 3000 + "]" * 3000,
)
DOCUMENTS = (*NOT_JSON, *JSON)
WITHOUT = {"sessions", "dataset_items", "dataset_run_items"}
"""Tables without texts that may hold JSON: the documents of dataset items are checked by the database."""
READ = [(PROJECTS[0], *reading) for reading in READINGS if reading[0] not in WITHOUT] + [(EVENTS_ONLY, "traces", False)]
HOLDERS = {"input", "output", "model_parameters", "before", "after"}


def _world() -> dict[str, list[dict[str, Any]]]:
    """Random rows whose texts that may hold JSON are the documents, one after the other."""
    texts = cycle(DOCUMENTS)
    return {
        table: [{name: _filled(name, value, texts) for name, value in row.items()} for row in rows]
        for table, rows in worlds.make(7, SIZE).items()
    }


def _filled(name: str, value: Any, texts: Iterator[str]) -> Any:
    if isinstance(value, Document) or value is None:
        return value
    if name == "metadata_values":
        return [next(texts) for _ in value]
    if name in {"metadata", "tool_definitions"}:
        return {key: next(texts) for key in value}
    return next(texts) if name in HOLDERS else value


@pytest.fixture(scope="module")
def rows(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with servers.stack(tmp_path_factory.mktemp("json")) as stack, fill_databases(stack, _world()) as filled:
        yield filled


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize(("project", "table", "events"), READ)
def test_cells_are_json_where_parsers_read_json(
    rows: Filled, project: str, table: str, events: bool, form: str
) -> None:
    query = {"tableName": table, "filter": None, "orderBy": None, "useEventsTable": events}
    assert rows.problems(project, query, form) == []


@pytest.mark.parametrize("form", ["JSON", "JSONL"])
def test_a_json_value_is_written_as_it_is_stored(rows: Filled, form: str) -> None:
    query = {"tableName": "traces", "filter": None, "orderBy": None}
    files = [rows.file(project, query, form).decode() for project in PROJECTS]
    for text in ('{"a": 1, "a": 2, "é": 3}', "[1e400, -1.5E+999 ,1e-400, 0e999]", r'"\udc00é"', "1" * 400):
        assert any(f":{text}," in file for file in files), text
