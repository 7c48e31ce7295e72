import json
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.tables import KINDS
from pipeline.tables import TABLES
from pipeline.tables.columns import ACCEPTED_FILTERS


def described(*arguments: str) -> Any:
    done = CliRunner().invoke(app, ["tables", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_every_table_is_listed() -> None:
    assert [each["table"] for each in described()] == sorted(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_described_with_every_filter_that_it_takes(table: str) -> None:
    found = described(table)

    assert [each["column"] for each in found["filters"]] == [column.id for column in TABLES[table].filterables]
    assert all(set(each["takes"]) == ACCEPTED_FILTERS[each["type"]] for each in found["filters"])
    assert all(operators for each in found["filters"] for operators in each["takes"].values())


def test_the_columns_are_those_of_the_file() -> None:
    traces, audit_logs = described("traces"), described("audit_logs")
    names = [each["name"] for each in traces["columns"]]

    assert names[:3] == ["id", "timestamp", "name"]
    assert names[-2:] == ["metadata", "comments"]
    assert [each["name"] for each in audit_logs["columns"]][-2:] == ["before", "after"]
    assert (traces["scoreColumns"], audit_logs["scoreColumns"]) == (True, False)


@pytest.mark.parametrize("table", TABLES)
def test_the_columns_of_the_list_are_those_that_a_query_may_name(table: str) -> None:
    done = CliRunner().invoke(app, ["tables"])
    (line,) = [each for each in done.output.splitlines() if each.startswith(f"{table} ")]

    assert line.split()[2] == str(len(TABLES[table].columns))
    assert all(each["kind"] in KINDS for each in described(table)["columns"])


def test_the_columns_of_scores_are_named_in_the_printed_table() -> None:
    assert "scores.NAME" in CliRunner().invoke(app, ["tables", "traces"]).output
    assert "scores.NAME" not in CliRunner().invoke(app, ["tables", "audit_logs"]).output


@pytest.mark.parametrize("table", TABLES)
def test_the_printed_tables_name_every_filter_column(table: str) -> None:
    done = CliRunner().invoke(app, ["tables", table], env={"COLUMNS": "250"})

    assert done.exit_code == 0
    assert all(column.id in done.output for column in TABLES[table].filterables)


def test_an_unknown_table_is_rejected_with_the_names_of_all_tables() -> None:
    done = CliRunner().invoke(app, ["tables", "prompts"])

    assert done.exit_code == 2
    assert "traces" in done.stderr
