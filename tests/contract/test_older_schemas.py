"""Tables of an older Langfuse: columns that they do not have yet are null and named; a missing table is refused."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from config.errors import Rejected
from config.metrics import Metrics
from pipeline.export import export
from pipeline.progress import Progress
from pipeline.read import check
from pipeline.spec import read_spec
from pipeline.storage import S3Options, open_storage
from pipeline.types import FORMATS
from tests.support.databases import CUTOFF, EVENT, OBSERVATION, Databases
from tests.support.tables import READINGS, drop_later_columns

pytestmark = pytest.mark.clickhouse

TOOLS = {"toolDefinitions", "toolCalls", "toolCallNames", "toolDefinitionsCount", "toolCallsCount"}
NULL = TOOLS | {"environment", "usagePricingTierId", "usagePricingTierName"}


@pytest.fixture
def older(databases: Databases) -> Databases:
    databases.traces({"id": "t", "name": "n", "session_id": "s"})
    databases.put("observations", {**OBSERVATION, "tool_calls": ["lost"], "input": "in"})
    databases.scores({"name": "s"}, {"name": "c", "data_type": "CATEGORICAL", "string_value": "yes", "value": 0})
    databases.put("events_full", EVENT)
    drop_later_columns(databases.client)
    return databases


@pytest.mark.parametrize("form", ["PARQUET", "JSONL"])
def test_columns_of_newer_versions_are_null_and_the_others_are_as_ever(older: Databases, form: str) -> None:
    read = older.read(tableName="observations", form=form)

    (row,) = read.rows
    assert {name for name in NULL if row[name] is None} == NULL
    assert (row["id"], row["input"], row["traceName"], row["totalUsage"]) == ("o", "in", "n", 0)


@pytest.mark.slow
def test_every_table_can_be_exported_in_every_format(older: Databases, tmp_path: Path) -> None:
    for table, events in READINGS:
        for form in FORMATS:
            older.read(tableName=table, useEventsTable=events, form=form)
            write(older, tmp_path, table, form, events=events)


def write(
    databases: Databases,
    folder: Path,
    table: str,
    form: str,
    *,
    events: bool = False,
    columns: list[str] | None = None,
) -> dict[str, object]:
    """Export a table to a file, and return its manifest."""
    query = {"tableName": table, "filter": None, "orderBy": None, "useEventsTable": events, "columns": columns}
    spec = read_spec(project_id="p", export_id="e", attempt=1, created_at=CUTOFF, query=query, format=form)
    storage = open_storage(f"file://{folder}", S3Options())
    done = export(
        spec,
        databases.sources,
        storage,
        Progress(),
        Metrics(CollectorRegistry()),
        fence=lambda: None,
        clock=lambda: datetime.now(UTC),
    )
    manifest: dict[str, object] = json.loads((folder / f"{done.key}.manifest.json").read_text())
    return manifest


def test_null_columns_are_named_in_the_manifest_and_in_a_warning(
    older: Databases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        manifest = write(older, tmp_path, "traces", "CSV")

    assert manifest["nullColumns"] == [
        "scores.execution_trace_id",
        "scores.long_string_value",
        "traces.environment",
    ]
    assert "traces.environment" in caplog.text


def test_only_null_columns_of_the_file_are_named(older: Databases, tmp_path: Path) -> None:
    assert write(older, tmp_path, "traces", "CSV", columns=["id", "name"])["nullColumns"] == []
    named = write(older, tmp_path, "traces", "CSV", columns=["environment", "id"])
    assert (named["columns"], named["nullColumns"]) == (["environment", "id"], ["traces.environment"])


def test_a_complete_schema_has_no_null_columns(databases: Databases, tmp_path: Path) -> None:
    databases.traces({"id": "t"})
    assert write(databases, tmp_path, "traces", "CSV")["nullColumns"] == []


def test_scores_count_without_the_columns_of_newer_versions(older: Databases) -> None:
    (row,) = older.read(form="PARQUET").rows
    assert (row["s"], row["c"]) == ([1.0], ["yes"])


def test_a_filter_on_a_column_of_newer_versions_is_refused_by_name(older: Databases) -> None:
    tools = {"type": "arrayOptions", "column": "toolNames", "operator": "any of", "value": ["x"]}
    with pytest.raises(Rejected, match="toolNames"):
        older.read(tableName="observations", filter=[tools])


def test_a_missing_table_is_refused_by_name_and_named_by_the_doctor(older: Databases) -> None:
    older.client.command("DROP TABLE scores")
    with pytest.raises(Rejected, match="the table scores is missing"):
        older.read(tableName="scores")
    assert any("the table scores is missing" in problem for problem in check.find_problems(older.sources.clickhouse))


def test_a_table_without_a_column_that_every_langfuse_has_is_refused_by_name(older: Databases) -> None:
    older.client.command("ALTER TABLE scores DROP COLUMN comment")
    with pytest.raises(Rejected, match=r"the table scores has no column comment"):
        older.read()
    (problem,) = check.find_problems(older.sources.clickhouse)
    assert "the table scores has no column comment" in problem


def test_the_doctor_warns_of_columns_of_newer_versions(older: Databases) -> None:
    assert check.find_problems(older.sources.clickhouse) == []
    effects = " ".join(check.find_effects(older.sources.clickhouse))
    assert "the table observations lacks environment, tool_call_names" in effects


def test_traces_are_read_from_events_where_there_is_no_table_of_traces(databases: Databases) -> None:
    databases.put("events_full", EVENT)
    databases.client.command("DROP TABLE traces")
    assert databases.ids() == ["t"]
