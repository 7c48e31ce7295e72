"""Declares the table `dataset_run_items`."""

from datetime import datetime
from typing import Any

from clickhouse_connect.cc_sqlalchemy import select
from sqlalchemy import Engine, Select, String, column, func, table
from sqlalchemy import select as select_in_database

from config.tables import datasets
from pipeline.sql.clickhouse import bind_text, to_utc
from pipeline.sql.scores import ScoreLevel
from pipeline.sql.sources import dataset_run_items as source
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.columns import ExternalTable, Filterable, Join, Output, ScoresFilterable
from pipeline.types import Kind

rows = source.table.alias("i")
i = rows.c

_names = table("datasets", column("id", String()), column("name", String()))


def _select_names(_project_id: str, _cutoff: datetime) -> Select[Any]:
    return select(_names.c.id.label("named_key"), _names.c.name.label("dataset_name"))


def _select_datasets(project_id: str, _database: Engine) -> Select[Any]:
    return select_in_database(datasets.c.id, datasets.c.name).where(datasets.c.project_id == project_id)


named = Join(
    "named",
    on=i.dataset_id,
    rows=_select_names,
    external=ExternalTable("datasets", "id String, name Nullable(String)", _select_datasets),
)
dataset_name = func.coalesce(column("dataset_name", String()), bind_text("Unknown"), type_=String())
SCORE_LEVELS = (ScoreLevel(("trace_id",), (i.trace_id,), categories=("CATEGORICAL",)),)

DATASET_RUN_ITEMS = ClickHouseTable(
    name="dataset_run_items",
    source=source,
    rows=rows,
    outputs=(
        Output("id", Kind.TEXT, i.id),
        Output("projectId", Kind.TEXT, i.project_id),
        Output("datasetItemId", Kind.TEXT, i.dataset_item_id),
        Output("traceId", Kind.TEXT, i.trace_id),
        Output("observationId", Kind.TEXT, i.observation_id),
        Output("createdAt", Kind.INSTANT, to_utc(i.created_at)),
        Output("updatedAt", Kind.INSTANT, to_utc(i.updated_at)),
        Output("datasetName", Kind.TEXT, dataset_name, join=named),
    ),
    filterables=(
        Filterable("datasetRunId", ("Dataset Run ID",), "stringOptions", i.dataset_run_id),
        Filterable("createdAt", ("Created At",), "datetime", i.created_at),
        Filterable("eventTs", ("Event Timestamp",), "datetime", i.event_ts),
        Filterable("datasetItemId", ("Dataset Item ID",), "stringOptions", i.dataset_item_id),
        Filterable("datasetId", ("Dataset",), "stringOptions", i.dataset_id),
        ScoresFilterable("agg_scores_avg", ("Scores (numeric)",), "numberObject", SCORE_LEVELS),
        ScoresFilterable("agg_score_categories", ("Scores (categorical)",), "categoryOptions", SCORE_LEVELS),
        ScoresFilterable("agg_score_booleans", ("Scores (boolean)",), "booleanObject", SCORE_LEVELS),
    ),
    searched={"id": (i.id, i.dataset_item_id, i.trace_id, i.observation_id, dataset_name)},
    moment=i.created_at,
    order=(i.created_at.desc(), i.event_ts.desc(), i.id),
    wide=(),
)
