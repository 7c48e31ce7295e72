import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.query.choose_columns import choose_columns
from pipeline.query.resolve_columns import resolve_query
from pipeline.query.statements import FEW_ROWS, RowStatements, make_survey
from pipeline.spec import ExportSpec, read_spec
from pipeline.sql.clickhouse import MAX_BOUND_BYTES
from pipeline.sql.compile import compile_statement
from pipeline.sql.sources import Source
from pipeline.sql.statements import CompiledStatements, Statement
from pipeline.tables.clickhouse_table import ClickHouseTable
from tests.support.tables import CLICKHOUSE_TABLES
from tests.unit.pipeline.query.test_clickhouse import every_filter

QUERIES: tuple[dict[str, Any], ...] = (
    {"filter": [], "orderBy": None},
    {"filter": [], "orderBy": None, "columns": ["id"]},
    {"filter": True, "orderBy": {"column": "timestamp", "order": "DESC"}, "searchQuery": "x"},
)
FIRST = {"project_id": "first", "created_at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)}
OTHER = {"project_id": "other", "created_at": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)}
LONG = ["é" * (MAX_BOUND_BYTES // 4) + str(number) for number in range(3)]


def read(table: str, query: dict[str, Any], form: str, **of: Any) -> ExportSpec:
    one_of_each_type = {each["type"]: each for each in every_filter(table)}
    filters = query["filter"] and list(one_of_each_type.values())
    if not CLICKHOUSE_TABLES[table].searched:
        query = {name: value for name, value in query.items() if name != "searchQuery"}
    asked = {"tableName": table, **query, "filter": filters}
    return read_spec(export_id="e", attempt=1, query=asked, format=form, **of)


def make_all(declared: ClickHouseTable, spec: ExportSpec, names: list[str]) -> Iterator[Statement]:
    made = RowStatements(declared, choose_columns(declared, spec.query), resolve_query(declared, spec.query), spec)
    yield made.make_large_row()
    if (survey := make_survey(declared, spec)) is not None:
        yield survey
    yield made.make_rows([], 0, by_day=True)
    yield made.make_rows(names, FEW_ROWS, by_day=False)
    yield made.make_rows(names, FEW_ROWS + 1, by_day=True)
    yield made.make_bounded_rows(names, by_day=True)


def tables_and_variants() -> Iterator[ClickHouseTable]:
    for table in CLICKHOUSE_TABLES.values():
        yield from (each for each in (table, table.fallback, table.from_events) if each is not None)


@pytest.mark.parametrize("query", QUERIES)
def test_a_kept_statement_with_new_values_is_the_one_that_would_be_compiled(query: dict[str, Any]) -> None:
    kept = CompiledStatements()
    for declared in tables_and_variants():
        for statement in make_all(declared, read(declared.name, query, "JSONL", **FIRST), ["a"]):
            kept.compile(statement, {})
        for statement in make_all(declared, read(declared.name, query, "JSONL", **OTHER), ["b", "c"]):
            assert kept.compile(statement, {}) == compile_statement(statement.make())


def test_a_statement_of_a_known_shape_is_not_made_again() -> None:
    kept, query = CompiledStatements(), QUERIES[0]
    for declared in tables_and_variants():
        for statement in make_all(declared, read(declared.name, query, "CSV", **FIRST), ["a"]):
            kept.compile(statement, {})
        for statement in make_all(declared, read(declared.name, query, "CSV", **OTHER), ["b", "c"]):
            kept.compile(replace(statement, make=pytest.fail), {})


def test_score_names_of_another_number_of_parts_have_another_shape() -> None:
    kept, declared = CompiledStatements(), CLICKHOUSE_TABLES["traces"]
    spec = read("traces", QUERIES[0], "CSV", **FIRST)
    for names in (["a"], LONG, LONG[:2], ["b", "c"], [*LONG, "d"]):
        for statement in make_all(declared, spec, names):
            assert kept.compile(statement, {}) == compile_statement(statement.make())


def test_columns_that_a_table_lacks_are_part_of_the_shape() -> None:
    kept, declared = CompiledStatements(), CLICKHOUSE_TABLES["traces"]
    spec = read("traces", QUERIES[0], "CSV", **FIRST)
    lacking = {"traces": frozenset({"environment"})}
    for absent in ({}, lacking, {}, lacking):
        for statement in make_all(declared, spec, ["a"]):
            assert kept.compile(statement, absent) == compile_statement(statement.make(), absent)


@pytest.mark.parametrize("table", ["traces", "observations", "scores", "dataset_run_items"])
def test_the_statement_for_few_rows_reads_the_versions_of_rows_once_less(table: str) -> None:
    declared = CLICKHOUSE_TABLES[table]
    spec = read(table, QUERIES[0], "CSV", **FIRST)
    made = RowStatements(declared, declared, resolve_query(declared, spec.query), spec)
    assert isinstance(declared.source, Source)
    reads = re.compile(f"FROM `{declared.source.table.name}`")
    few, many = (
        len(reads.findall(compile_statement(made.make_rows(["a"], rows, by_day=True).make()).sql))
        for rows in (FEW_ROWS, FEW_ROWS + 1)
    )
    assert 2 <= few < many
