import re
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.query.clickhouse import select_large_row, select_rows
from pipeline.query.resolve_columns import resolve_order, resolve_query
from pipeline.query.statements import make_survey
from pipeline.request import OrderBy
from pipeline.spec import ExportSpec, read_spec
from pipeline.sql.clickhouse import MAX_BOUND_BYTES
from pipeline.sql.compile import CompiledStatement, compile_statement
from pipeline.tables import TABLES
from pipeline.tables.columns import ACCEPTED_FILTERS
from pipeline.types import OutputOptions
from tests.support.tables import CLICKHOUSE_TABLES

MARK = "zq'`\"\\{x:String}%(y)s;--"
NUMBER = 424242.5
VALUES: dict[str, dict[str, object]] = {
    "string": {"operator": "does not contain", "value": MARK},
    "stringOptions": {"operator": "none of", "value": [MARK]},
    "number": {"operator": ">=", "value": NUMBER},
    "datetime": {"operator": "<", "value": "2026-01-01T00:00:00Z"},
    "boolean": {"operator": "<>", "value": True},
    "arrayOptions": {"operator": "all of", "value": [MARK]},
    "stringObject": {"operator": "=", "key": MARK, "value": MARK},
    "numberObject": {"operator": "=", "key": MARK, "value": NUMBER},
    "categoryOptions": {"operator": "none of", "key": MARK, "value": [MARK]},
    "booleanObject": {"operator": "<>", "key": MARK, "value": True},
    "null": {"operator": "is null", "value": ""},
    "positionInTrace": {"operator": "=", "key": "nthFromEnd", "value": 424242},
}
READ = r"(?:FROM|JOIN) `(?:traces|observations|scores|events_full|dataset_run_items_rmt)`"


def every_filter(table: str) -> list[dict[str, object]]:
    return [
        {"column": column.id, "type": type_, **VALUES[type_]}
        for column in CLICKHOUSE_TABLES[table].filterables
        for type_ in sorted(ACCEPTED_FILTERS[column.type])
    ]


def spec(table: str, form: str = "JSONL", **query: object) -> ExportSpec:
    return read_spec(
        project_id=MARK,
        export_id=MARK,
        attempt=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        query={"tableName": table, "filter": every_filter(table), "searchQuery": MARK, **query},
        format=form,
        output=OutputOptions(row_limit=5),
    )


def rows(asked: ExportSpec, score_names: list[str]) -> CompiledStatement:
    table = CLICKHOUSE_TABLES[asked.query.table_name]
    return compile_statement(select_rows(table, resolve_query(table, asked.query), asked, score_names))


def large_row(asked: ExportSpec) -> Any:
    table = CLICKHOUSE_TABLES[asked.query.table_name]
    return select_large_row(table, resolve_query(table, asked.query), asked)


@pytest.mark.parametrize("table", CLICKHOUSE_TABLES)
@pytest.mark.parametrize("form", ["CSV", "JSONL"])
def test_no_value_of_a_request_is_part_of_the_text(table: str, form: str) -> None:
    asked = spec(table, form)
    survey = make_survey(CLICKHOUSE_TABLES[table], asked)
    others = [large_row(asked), *([] if survey is None else [survey.make()])]
    for made in (rows(asked, [MARK]), *map(compile_statement, others)):
        assert "zq" not in made.sql
        assert "2026" not in made.sql
        assert "424242" not in made.sql


@pytest.mark.parametrize("table", CLICKHOUSE_TABLES)
def test_every_read_of_a_table_is_bound_to_the_project(table: str) -> None:
    for made in (rows(spec(table), ["a"]), compile_statement(large_row(spec(table)))):
        reads = len(re.findall(READ, made.sql))
        places = re.findall(r"`project_id` = \{(\w+):String\}", made.sql)
        assert reads == len(places) >= 3
        assert {made.parameters[place] for place in places} == {MARK}


def test_the_text_is_as_long_for_a_thousand_score_names_as_for_one() -> None:
    names = [f"score {number}" for number in range(1000)]
    assert len(rows(spec("traces"), names[:1]).sql) == len(rows(spec("traces"), names).sql)


def test_a_long_list_is_bound_in_pieces_that_a_server_takes() -> None:
    values = ["é" * 1000 for _ in range(500)]
    asked = spec("traces", filter=[{"column": "id", "type": "stringOptions", "operator": "any of", "value": values}])
    lists = [value for value in rows(asked, values).parameters.values() if isinstance(value, list)]
    assert sum(len(each) for each in lists if each[0] == values[0]) == 1000
    assert all(sum(len(text.encode()) for text in each) <= MAX_BOUND_BYTES for each in lists)


@pytest.mark.parametrize("table", sorted(TABLES))
@pytest.mark.parametrize("time", ["timestamp", "startTime", "createdAt"])
def test_a_saved_order_by_time_names_the_time_of_every_table(table: str, time: str) -> None:
    found = resolve_order(TABLES[table], OrderBy(column=time, order="DESC"))
    assert found.column.value is TABLES[table].moment
