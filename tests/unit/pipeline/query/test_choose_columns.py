import re
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import create_engine

from config.errors import Rejected
from consumer.new_exports import check_query
from pipeline.enrich.scores import make_score_columns
from pipeline.query.choose_columns import arrange_columns, check_columns, choose_columns, choose_outputs, choose_scores
from pipeline.query.clickhouse import external_tables, select_large_row, select_rows, select_survey
from pipeline.query.postgres import select_rows as select_database_rows
from pipeline.query.resolve_columns import resolve_query
from pipeline.spec import ExportSpec, read_query, read_spec
from pipeline.sql.compile import CompiledStatement, compile_statement
from pipeline.tables import TABLES, TableDeclaration, resolve_table
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.from_events import TRACES_FROM_EVENTS
from pipeline.tables.traces import TRACES
from pipeline.types import FORMATS, Column, Kind
from tests.support.tables import CLICKHOUSE_TABLES, DATABASE_TABLES, READINGS

WHOLE = [(table, events) for table, events in READINGS if table in CLICKHOUSE_TABLES]


def spec(table: str, *columns: str, form: str = "CSV", **query: object) -> ExportSpec:
    return read_spec(
        project_id="p",
        export_id="e",
        attempt=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        query={"tableName": table, **({"columns": columns} if columns else {}), **query},
        format=form,
    )


def chosen(asked: ExportSpec) -> ClickHouseTable:
    table = resolve_table(asked.query)
    assert isinstance(table, ClickHouseTable)
    return choose_columns(table, asked.query)


def rows(asked: ExportSpec) -> CompiledStatement:
    table, query = chosen(asked), resolve_query(resolve_table(asked.query), asked.query)
    return compile_statement(select_rows(table, query, asked, list(asked.query.scores or ())))


def test_a_statement_reads_the_named_columns_and_no_others() -> None:
    sql = rows(spec("traces", "name", "userId")).sql
    assert {"name", "user_id"} <= set(re.findall(r"`t`\.`(\w+)`", sql))
    for other in ("input", "output", "metadata", "tags", "release", "scores"):
        assert f"`{other}`" not in sql


@pytest.mark.parametrize("table", [TRACES, TRACES_FROM_EVENTS], ids=["traces", "traces-of-events"])
def test_the_survey_measures_the_named_columns_and_no_others(table: ClickHouseTable) -> None:
    def survey(*columns: str) -> str:
        asked = spec("traces", *columns)
        statement = select_survey(choose_columns(table, asked.query), asked)
        assert statement is not None
        return compile_statement(statement).sql

    assert "`output`" in survey("id", "output")
    assert "`input`" not in survey("id", "output")
    assert "put`" not in survey("id", "scores")


def test_a_large_cell_that_is_not_read_fails_no_export() -> None:
    asked = spec("traces", "id", "output")
    sql = compile_statement(select_large_row(chosen(asked), resolve_query(TABLES["traces"], asked.query), asked)).sql
    assert "`output`" in sql
    assert "`input`" not in sql


def test_scores_are_read_only_by_their_names() -> None:
    made = rows(spec("traces", "id", "scores.a", "scores.b"))
    assert re.search(r"PREWHERE `s`.*`s`\.`name` IN {name_1:Array\(String\)} \nWHERE `s`", made.sql, re.DOTALL)
    assert made.parameters["name_1"] == ["a", "b"]
    assert "`scores`" not in rows(spec("traces", "id")).sql
    assert chosen(spec("traces", "id", "scores")).scores == CLICKHOUSE_TABLES["traces"].scores


def test_a_trace_is_joined_only_to_what_needs_it() -> None:
    joins = r"JOIN \(SELECT (?:.(?!JOIN))*AS `trace_key`"
    filter_ = [{"column": "userId", "type": "string", "operator": "=", "value": "u"}]
    assert not re.search(joins, rows(spec("observations", "id")).sql)
    for needing in (
        spec("observations", "id", "traceName"),
        spec("observations", "id", filter=filter_),
        spec("observations", "id", orderBy={"column": "traceName", "order": "ASC"}),
        spec("observations", "id", searchQuery="u"),
    ):
        assert re.search(joins, rows(needing).sql)


def test_tables_of_postgres_are_sent_only_where_they_are_needed() -> None:
    def sent(asked: ExportSpec) -> list[str]:
        query: Any = resolve_query(resolve_table(asked.query), asked.query)
        return [each.name for each in external_tables(chosen(asked), query)]

    assert sent(spec("dataset_run_items", "id", "datasetName")) == ["datasets"]
    assert sent(spec("dataset_run_items", "id")) == []
    assert sent(spec("dataset_run_items", "id", searchQuery="x")) == ["datasets"]


@pytest.mark.parametrize(
    ("table", "name", "source"),
    [("observations", "inputPrice", "internal_model_id"), ("scores", "authorUserName", "author_user_id")],
)
def test_a_column_that_is_looked_up_is_read_by_its_key(table: str, name: str, source: str) -> None:
    assert f"`{source}`" in rows(spec(table, name)).sql
    assert f"`{source}`" not in rows(spec(table, "id")).sql
    assert chosen(spec(table, name)).enrichers
    assert not chosen(spec(table, "id")).enrichers


def test_comments_are_looked_up_only_if_they_are_named() -> None:
    assert chosen(spec("traces", "comments")).comments_on == "TRACE"
    assert chosen(spec("traces", "name")).comments_on is None


@pytest.mark.parametrize(("table", "events"), WHOLE)
def test_every_column_alone_is_read_with_the_id_of_the_row(table: str, events: bool) -> None:
    for column in CLICKHOUSE_TABLES[table].columns:
        asked = spec(table, column.name, useEventsTable=events)
        narrow = chosen(asked)
        named = [output.name for output in (*narrow.outputs, *narrow.enricher_inputs)]
        assert "id" in named
        assert len(named) <= 3
        assert arrange_columns(CLICKHOUSE_TABLES[table].columns, [], asked.query) == [column]


@pytest.mark.parametrize("table", DATABASE_TABLES)
def test_a_statement_of_postgres_reads_the_named_columns_and_the_id(table: str) -> None:
    declared = DATABASE_TABLES[table]
    for column in declared.columns:
        asked = spec(table, column.name)
        narrow = choose_outputs(declared, asked.query)
        statement = select_database_rows(
            narrow, resolve_query(declared, asked.query), asked, create_engine("sqlite://")
        )
        assert {output.name for output in narrow.outputs} == {"id", column.name}
        assert len(statement.selected_columns) == len(narrow.outputs)


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_a_table_is_unchanged_without_columns(table: TableDeclaration) -> None:
    query = read_query({"tableName": table.name})
    chosen = choose_columns(table, query) if isinstance(table, ClickHouseTable) else choose_outputs(table, query)
    assert chosen is table


@pytest.mark.parametrize("table", TABLES)
def test_an_unknown_column_is_refused_with_those_that_exist(table: str) -> None:
    with pytest.raises(Rejected, match="no column 'colour'") as raised:
        check_query(read_query({"tableName": table, "columns": ["id", "colour"]}))
    assert all(column.name in str(raised.value) for column in TABLES[table].columns)


@pytest.mark.parametrize("name", ["scores", "scores.a"])
@pytest.mark.parametrize("table", TABLES)
def test_scores_are_columns_of_the_tables_that_have_them(table: str, name: str) -> None:
    declared, query = TABLES[table], read_query({"tableName": table, "columns": ["id", name]})
    if isinstance(declared, ClickHouseTable) and declared.scores:
        check_columns(declared, query)
    else:
        with pytest.raises(Rejected, match=f"no column '{name}'"):
            check_columns(declared, query)


FOUND = make_score_columns([("b", ["NUMERIC"]), ("name", ["TEXT"]), ("z", ["NUMERIC", "TEXT"])], {"id", "name"})
TABLE = [Column("id", Kind.TEXT), Column("name", Kind.TEXT)]


def arranged(*columns: str, form: str = "CSV") -> list[tuple[str, Kind]]:
    query = read_query({"tableName": "traces", "columns": columns})
    made = arrange_columns(TABLE, choose_scores(FOUND, query, FORMATS[form]), query)
    return [(column.name, column.kind) for column in made]


def test_scores_have_the_names_that_they_have_in_a_whole_file() -> None:
    assert arranged("scores.name", "name", "scores.b", form="PARQUET") == [
        ("scores.name", Kind.LIST),
        ("name", Kind.TEXT),
        ("b", Kind.LIST),
    ]
    assert arranged("id", "scores", "name", form="PARQUET") == [
        ("id", Kind.TEXT),
        *[("b", Kind.LIST), ("scores.name", Kind.LIST), ("z", Kind.MIXED)],
        ("name", Kind.TEXT),
    ]


def test_scores_that_come_last_are_sparse_and_others_are_not() -> None:
    assert arranged("id", "scores.z", "scores.b") == [("id", Kind.TEXT), ("z", Kind.SPARSE), ("b", Kind.SPARSE)]
    assert arranged("id", "scores")[1:] == [("b", Kind.SPARSE), ("scores.name", Kind.SPARSE), ("z", Kind.SPARSE)]
    assert arranged("id", "scores.z", "name") == [("id", Kind.TEXT), ("z", Kind.JSON), ("name", Kind.TEXT)]
    assert {kind for _, kind in arranged("scores")} == {Kind.JSON}


def test_an_unknown_score_is_refused_with_those_that_exist() -> None:
    with pytest.raises(Rejected, match=r"The project has no score 'accuracy'. Its scores: b, name, z\."):
        arranged("id", "scores.accuracy")
    with pytest.raises(Rejected, match=r"has no score 'x'. Its scores: none\."):
        choose_scores([], read_query({"tableName": "traces", "columns": ["scores.x"]}), FORMATS["CSV"])


def test_scores_alone_are_refused_in_a_project_without_any() -> None:
    query = read_query({"tableName": "traces", "columns": ["scores"]})
    with pytest.raises(Rejected, match="Name at least one more column"):
        choose_scores([], query, FORMATS["CSV"])


def test_more_scores_than_a_statement_can_number_are_refused_unless_few_are_named() -> None:
    every = make_score_columns([(str(number), ["NUMERIC"]) for number in range(65_535)], {"id"})
    whole, few = (read_query({"tableName": "traces", "columns": ["id", each]}) for each in ("scores", "scores.65534"))
    with pytest.raises(Rejected, match=r"has 65,535 names of scores, and a file has columns for 65,534 at most"):
        choose_scores(every, whole, FORMATS["CSV"])
    assert len(choose_scores(every[:-1], whole, FORMATS["CSV"])) == 65_534
    assert [each.score for each in choose_scores(every, few, FORMATS["CSV"])] == ["65534"]
