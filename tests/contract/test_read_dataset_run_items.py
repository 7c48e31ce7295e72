"""Reading `dataset_run_items`, with the names of their datasets from the SQL database."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from config.tables import datasets
from tests.support.databases import RUN_ITEM, Databases, Read, Row

pytestmark = pytest.mark.clickhouse


def items(databases: Databases, *rows: Row) -> None:
    databases.put("dataset_run_items_rmt", *({**RUN_ITEM, "id": f"i{index}", **row} for index, row in enumerate(rows)))


def dataset(databases: Databases, id_: str, name: str, project: str = "p") -> None:
    with databases.engine.begin() as connection:
        connection.execute(insert(datasets).values(id=id_, project_id=project, name=name))


def read(databases: Databases, **query: object) -> Read:
    return databases.read(tableName="dataset_run_items", **query)  # type: ignore[arg-type] # query is JSON


def test_a_row_has_the_columns_and_values_of_its_item(databases: Databases) -> None:
    dataset(databases, "d", "Fixtures")
    items(databases, {"id": "x", "observation_id": "o", "created_at": "2026-05-10 12:00:00.123"})
    found = read(databases)
    assert found.rows == [
        {
            "id": "x",
            "projectId": "p",
            "datasetItemId": "i",
            "traceId": "t",
            "observationId": "o",
            "createdAt": datetime(2026, 5, 10, 12, 0, 0, 123000, tzinfo=UTC),
            "updatedAt": datetime(2026, 5, 10, 12, tzinfo=UTC),
            "datasetName": "Fixtures",
        }
    ]
    assert list(found.rows[0]) == [column.name for column in found.columns]


def test_the_name_of_another_projects_dataset_is_not_shown(databases: Databases) -> None:
    dataset(databases, "d", "of another project", project="q")
    items(databases, {})
    assert [row["datasetName"] for row in read(databases).rows] == ["Unknown"]


def test_items_are_found_by_the_name_of_their_dataset(databases: Databases) -> None:
    dataset(databases, "d", "100% Fixtures")
    items(databases, {"id": "a"}, {"id": "b", "dataset_id": "gone"})
    assert read(databases, searchQuery="% fix").ids() == ["a"]
    assert read(databases, searchQuery="unknown").ids() == ["b"]


def test_items_come_newest_first_and_once(databases: Databases) -> None:
    items(databases, {"id": "old", "created_at": "2026-05-01 00:00:00"}, {"id": "b"}, {"id": "a"})
    items(
        databases, {"id": "a", "event_ts": "2026-05-11 00:00:00"}, {"id": "late", "created_at": "2026-06-01 00:00:00"}
    )
    assert read(databases).ids() == ["a", "b", "old"]
    assert read(databases, orderBy={"column": "createdAt", "order": "ASC"}).ids() == ["old", "a", "b"]


def test_items_are_filtered_by_scores_of_their_traces(databases: Databases) -> None:
    items(databases, {"id": "a"}, {"id": "b", "trace_id": "u"})
    databases.scores(
        {"name": "acc", "value": 0.5, "observation_id": "o"}, {"name": "acc", "value": 0.25, "trace_id": "u"}
    )
    asked = {"type": "numberObject", "column": "agg_scores_avg", "key": "acc", "operator": ">", "value": 0.3}
    assert read(databases, filter=[asked]).ids() == ["a"]
