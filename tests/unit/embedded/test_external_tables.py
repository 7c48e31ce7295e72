"""External tables of a statement, as clickhouse-connect sends them."""

import json
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData

ROWS = "a\\tb\t1\nü\\r\\n--x\t2\n".encode()


def external(**described: str) -> ExternalData:
    return ExternalData(file_name="ids", data=ROWS, fmt="TabSeparated", **described)


@pytest.mark.parametrize("form", [True, False], ids=["values in a form", "values in the URL"])
def test_a_statement_reads_its_external_tables(client: Any, *, form: bool) -> None:
    client.form_encode_query_params = form
    both = external(structure="id String, number UInt64")
    both.add_file(file_name="none", data=b"", fmt="TabSeparated", structure="id String")
    answer = client.raw_query(
        "SELECT id, number + {more:UInt64} FROM ids WHERE id NOT IN (SELECT id FROM none) ORDER BY number",
        parameters={"more": 10},
        fmt="JSONCompactEachRow",
        external_data=both,
    )
    assert [json.loads(line) for line in answer.splitlines()] == [["a\tb", 11], ["ü\r\n--x", 12]]


def test_columns_without_names_are_numbered(client: Any) -> None:
    answer = client.raw_query(
        "SELECT sum(_2) FROM ids", fmt="TabSeparated", external_data=external(types="String,UInt64")
    )
    assert answer == b"3\n"


def test_an_external_table_ends_with_its_statement(client: Any) -> None:
    client.raw_query("SELECT 1 FROM ids", external_data=external(structure="id String, number UInt64"))
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        client.raw_query("SELECT 1 FROM ids")


def test_a_table_without_a_structure_is_rejected(client: Any) -> None:
    with pytest.raises(DatabaseError, match="has no structure"):
        client.raw_query("SELECT 1", external_data=external())
