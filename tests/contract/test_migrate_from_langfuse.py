"""Every row of the table of differences in docs/migrate-from-langfuse.md is true of Waybill."""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, insert

from config.errors import Rejected
from config.tables import audit_logs, comments, dataset_items
from pipeline.encode import ENCODERS
from pipeline.progress import Progress
from pipeline.read import open_table
from pipeline.spec import read_spec
from tests.support.databases import CUTOFF, EVENT, OBSERVATION, RUN_ITEM, Databases, Row

pytestmark = pytest.mark.clickhouse

DOCUMENT = Path(__file__).parents[2] / "docs/migrate-from-langfuse.md"
MAY_DAY = datetime(2026, 5, 1, tzinfo=UTC)
LATER = "2026-05-11 00:00:00.000"


def traces(*rows: Row) -> Callable[[Databases], None]:
    return lambda databases: databases.traces(*rows)


def put(table: str, base: Row, *rows: Row) -> Callable[[Databases], None]:
    return lambda databases: databases.put(table, *({**base, **row} for row in rows))


def add(table: Table, **values: object) -> Callable[[Databases], None]:
    def write(databases: Databases) -> None:
        with databases.engine.begin() as connection:
            connection.execute(insert(table).values(**values))

    return write


def cell(name: str) -> Callable[[str, bytes], str]:
    """Return how to read one cell of the only row: a CSV cell without its quotes, or the text of a JSON value."""

    def read(form: str, file: bytes) -> str:
        if form == "CSV":
            (row,) = csv.DictReader(io.StringIO(file.decode(), newline=""))
            return row[name] or "nothing"
        (line,) = file.decode().splitlines()
        return json.dumps(json.loads(line)[name], ensure_ascii=False)

    return read


def ids(form: str, file: bytes) -> str:
    assert form == "JSONL"
    return ", ".join(json.loads(line)["id"] for line in file.decode().splitlines()) or "no row"


def start(length: int) -> Callable[[str, bytes], str]:
    """Return how to read the first characters of a file, with its line ends as escapes."""
    return lambda _, file: file.decode()[:length].replace("\r", "\\r").replace("\n", "\\n")


@dataclass(frozen=True)
class Case:
    """Rows, a query, and what is read from the file."""

    fill: tuple[Callable[[Databases], None], ...]
    shows: Callable[[str, bytes], str]
    query: Mapping[str, Any] = field(default_factory=lambda: {"tableName": "traces"})
    form: str = "CSV"

    def run(self, databases: Databases) -> str:
        for fill in self.fill:
            fill(databases)
        try:
            return self.shows(self.form, self._export(databases))
        except Rejected:
            return "refused"

    def _export(self, databases: Databases) -> bytes:
        spec = read_spec(
            project_id="p",
            export_id="e",
            attempt=1,
            created_at=CUTOFF,
            query={"filter": None, "orderBy": None, **self.query},
            format=self.form,
        )
        with open_table(spec, databases.sources, Progress()) as table:
            pieces = ENCODERS[self.form](table.columns, table.enrich(table.batches), spec.encoding)
            return b"".join(bytes(piece) for piece in pieces)


def dataset_item(value: object) -> Callable[[Databases], None]:
    return add(
        dataset_items,
        id="i",
        project_id="p",
        dataset_id="d",
        input=value,
        **dict.fromkeys(("created_at", "updated_at", "valid_from"), MAY_DAY),
    )


def comment(trace_id: str, content: str) -> Callable[[Databases], None]:
    values = {"id": trace_id, "object_id": trace_id, "content": content, "project_id": "p", "object_type": "TRACE"}
    return add(comments, **values)


def condition(kind: str, column: str, operator: str, value: object) -> dict[str, object]:
    return {"filter": [{"type": kind, "column": column, "operator": operator, "value": value}]}


SESSION = (
    traces(
        {"id": "t1", "session_id": "s", "user_id": "ben", "tags": ["b", "a"]},
        {"id": "t2", "session_id": "s", "user_id": "ann", "tags": ["c"]},
    ),
    put(
        "observations",
        OBSERVATION,
        {"trace_id": "t1", "end_time": "2026-05-10 13:00:00.000", "cost_details": {"total": "0.30"}},
    ),
)
SESSIONS = {"tableName": "sessions"}
COMMENT = add(comments, id="c", project_id="p", object_type="TRACE", object_id="t", content="good", created_at=MAY_DAY)
AUDIT = add(
    audit_logs,
    id="a",
    project_id="p",
    created_at=MAY_DAY,
    updated_at=MAY_DAY,
    type="USER",
    resource_type="trace",
    resource_id="t",
    action="update",
    before='{"public": false}',
    after='{"public": true}',
    org_id="org",
)

CASES = {
    "instant in CSV": Case((traces({}),), cell("timestamp")),
    "instant of an event": Case((put("events_full", EVENT, {}),), cell("startTime"), {"tableName": "events"}),
    "`traceTimestamp` of an observation": Case(
        (traces({}), put("observations", OBSERVATION, {})), cell("traceTimestamp"), {"tableName": "observations"}
    ),
    "`traceTimestamp` of an observation without a trace": Case(
        (put("observations", OBSERVATION, {}),), cell("traceTimestamp"), {"tableName": "observations"}
    ),
    "`totalCost` of a session in CSV": Case(SESSION, cell("totalCost"), SESSIONS),
    "`totalCost` of a session in JSON": Case(SESSION, cell("totalCost"), SESSIONS, "JSONL"),
    "`sessionDuration` of one hour": Case(SESSION, cell("sessionDuration"), SESSIONS),
    "`userIds` of ben and ann": Case(SESSION, cell("userIds"), SESSIONS),
    "`name` that a spreadsheet would run": Case((traces({"name": "=1+1"}),), cell("name")),
    "`comments` in CSV": Case((traces({}), COMMENT), cell("comments")),
    "JSON in the `input` of a trace, in JSON": Case((traces({"input": '{"a": 1}'}),), cell("input"), form="JSONL"),
    "JSON in the `metadata` of a trace, in JSON": Case(
        (traces({"metadata": {"k": '{"a": 1}'}}),), cell("metadata"), form="JSONL"
    ),
    "`before` of an audit log, in JSON": Case((AUDIT,), cell("before"), {"tableName": "audit_logs"}, "JSONL"),
    "`input` with the escape of a quote, in CSV": Case((traces({"input": '{"a": "\\u0022"}'}),), cell("input")),
    "`input` with the text `\\u0041`": Case((traces({"input": "\\u0041"}),), cell("input")),
    "text in the `input` of a dataset item, in CSV": Case(
        (dataset_item("1"),), cell("input"), {"tableName": "dataset_items"}
    ),
    "object in the `input` of a dataset item, in CSV": Case(
        (dataset_item({"a": 1}),), cell("input"), {"tableName": "dataset_items"}
    ),
    "`toolCalls` of an observation without tools": Case(
        (put("observations", OBSERVATION, {}),), cell("toolCalls"), {"tableName": "observations"}
    ),
    "integer above 2^53": Case(
        (put("events_full", EVENT, {"usage_details": {"total": 9007199254740993}}),),
        cell("usageDetails"),
        {"tableName": "events"},
        "JSONL",
    ),
    "`id` of a trace with a score called `id`": Case(
        (traces({}), lambda databases: databases.scores({"name": "id"})), cell("id"), form="JSONL"
    ),
    "start of a CSV file": Case((), start(40), {"tableName": "dataset_run_items"}),
    "`observationId`: empty text, and null": Case(
        (
            put(
                "dataset_run_items_rmt",
                RUN_ITEM,
                {"id": "x", "observation_id": ""},
                {"id": "y", "observation_id": None},
            ),
        ),
        lambda _, file: " and ".join(line.split(",")[4] or "nothing" for line in file.decode().splitlines()[1:]),
        {"tableName": "dataset_run_items"},
    ),
    "line end in CSV": Case(
        (), lambda form, file: start(9)(form, file[file.index(b"\r") :]), {"tableName": "dataset_run_items"}
    ),
    "CSV file of no rows": Case((), lambda _, file: f"{len(file.splitlines())} line"),
    "run items x and y of one dataset item in one run": Case(
        (put("dataset_run_items_rmt", RUN_ITEM, {"id": "x"}, {"id": "y"}),),
        ids,
        {"tableName": "dataset_run_items"},
        "JSONL",
    ),
    "a trace that was deleted": Case((traces({}), traces({"event_ts": LATER, "is_deleted": 1})), ids, form="JSONL"),
    "a trace whose name was `old`, `name = old`": Case(
        (traces({"name": "old"}), traces({"name": "new", "event_ts": LATER})),
        ids,
        {"tableName": "traces", **condition("string", "name", "=", "old")},
        "JSONL",
    ),
    "traces a of ben and b without a user, `userId does not contain ann`": Case(
        (traces({"id": "a", "user_id": "ben"}, {"id": "b"}),),
        ids,
        {"tableName": "traces", **condition("string", "userId", "does not contain", "ann")},
        "JSONL",
    ),
    "a trace with the comment `good`, `commentContent contains goo`": Case(
        (traces({}), COMMENT),
        ids,
        {"tableName": "traces", **condition("string", "commentContent", "contains", "goo")},
        "JSONL",
    ),
    "traces with the comments `good` and `goodbye`, `commentContent = good`": Case(
        (traces({"id": "a"}, {"id": "b"}), comment("a", "good"), comment("b", "goodbye")),
        ids,
        {"tableName": "traces", **condition("string", "commentContent", "=", "good")},
        "JSONL",
    ),
    "a trace without errors, `level any of ERROR`": Case(
        (traces({}), put("observations", OBSERVATION, {})),
        ids,
        {"tableName": "traces", **condition("stringOptions", "level", "any of", ["ERROR"])},
        "JSONL",
    ),
    "an audit log of a trace, `resourceType = prompt`": Case(
        (AUDIT,),
        ids,
        {"tableName": "audit_logs", **condition("string", "resourceType", "=", "prompt")},
        "JSONL",
    ),
    "a session without the searched text": Case(
        SESSION, ids, {**SESSIONS, "searchQuery": "x", "searchType": ["id"]}, "JSONL"
    ),
    "traces a of `50%` and b of `500`, search for `50%`": Case(
        (traces({"id": "a", "name": "50%"}, {"id": "b", "name": "500"}),),
        ids,
        {"tableName": "traces", "searchQuery": "50%", "searchType": ["id"]},
        "JSONL",
    ),
    "traces a and b, descending by name": Case(
        (traces({"id": "a", "name": "1"}, {"id": "b", "name": "2"}),),
        ids,
        {"tableName": "traces", "orderBy": {"column": "name", "order": "DESC"}},
        "JSONL",
    ),
    "a trace, a filter on an unknown column": Case(
        (traces({}),), ids, {"tableName": "traces", **condition("string", "colour", "=", "red")}, "JSONL"
    ),
}


def _examples() -> dict[str, str]:
    """Read the tables of examples: what Waybill writes, by example."""
    tables = re.findall(r"^\| example \|.*\n((?:\|.*\n)+)", DOCUMENT.read_text(), re.MULTILINE)
    rows = re.findall(r"^\| ([^-].*?) \| .+? \| (.+?) \| .+? \|$", "".join(tables), re.MULTILINE)
    return dict(rows)


def test_every_example_of_the_document_is_tested() -> None:
    assert _examples().keys() == CASES.keys()


@pytest.mark.parametrize("example", CASES)
def test_an_example_of_the_document_is_true(databases: Databases, example: str) -> None:
    assert CASES[example].run(databases) == _examples()[example].replace("`", "")
