"""Declares the table `dataset_items`."""

from sqlalchemy import ColumnElement, Text, and_, case, cast, exists, func, literal

from config.tables import dataset_items, datasets
from pipeline.tables.columns import DatabaseOutput, Filterable
from pipeline.tables.database_table import DatabaseTable
from pipeline.types import Kind

items = dataset_items.alias("i")
named = datasets.alias("d")
i, d = items.c, named.c
status = cast(i.status, Text)
page = literal("/project/", Text()) + i.project_id + "/traces/" + i.source_trace_id


def is_current(project_id: str) -> ColumnElement[bool]:
    """Keep the current items of a project: the last version without an end, unless it is a deletion."""
    newer = dataset_items.alias("newer")
    superseded = exists().where(
        newer.c.project_id == project_id,
        newer.c.id == i.id,
        newer.c.valid_to.is_(None),
        newer.c.valid_from > i.valid_from,
    )
    return and_(i.project_id == project_id, i.valid_to.is_(None), i.is_deleted.is_(False), ~superseded)


DATASET_ITEMS = DatabaseTable(
    name="dataset_items",
    rows=items.outerjoin(named, and_(d.project_id == i.project_id, d.id == i.dataset_id)),
    is_current=is_current,
    outputs=(
        DatabaseOutput("id", Kind.TEXT, i.id),
        DatabaseOutput("projectId", Kind.TEXT, i.project_id),
        DatabaseOutput("datasetId", Kind.TEXT, i.dataset_id),
        DatabaseOutput("sourceTraceId", Kind.TEXT, i.source_trace_id),
        DatabaseOutput("sourceObservationId", Kind.TEXT, i.source_observation_id),
        DatabaseOutput("status", Kind.TEXT, status),
        DatabaseOutput("createdAt", Kind.INSTANT, i.created_at),
        DatabaseOutput("updatedAt", Kind.INSTANT, i.updated_at),
        DatabaseOutput("validFrom", Kind.INSTANT, i.valid_from),
        DatabaseOutput("input", Kind.JSON, i.input),
        DatabaseOutput("expectedOutput", Kind.JSON, i.expected_output),
        DatabaseOutput("metadata", Kind.JSON, i.metadata),
        DatabaseOutput("datasetName", Kind.TEXT, d.name),
        DatabaseOutput(
            "htmlSourcePath",
            Kind.TEXT,
            case(
                (func.coalesce(i.source_trace_id, "") == "", ""),
                (func.coalesce(i.source_observation_id, "") == "", page),
                else_=page + "?observation=" + i.source_observation_id,
            ),
        ),
    ),
    filterables=(
        Filterable("id", (), "string", i.id),
        Filterable("datasetId", (), "stringOptions", i.dataset_id),
        Filterable("sourceTraceId", (), "string", i.source_trace_id),
        Filterable("sourceObservationId", (), "string", i.source_observation_id),
        Filterable("status", (), "stringOptions", status),
        Filterable("metadata", (), "stringObject", i.metadata),
        Filterable("createdAt", (), "datetime", i.created_at),
        Filterable("validFrom", (), "datetime", i.valid_from),
    ),
    searched={
        "id": (i.id, i.source_trace_id, i.source_observation_id, d.name),
        "content": (cast(i.input, Text), cast(i.expected_output, Text)),
        "input": (cast(i.input, Text),),
        "output": (cast(i.expected_output, Text),),
    },
    moment=i.created_at,
    identity=i.id,
    order=((i.valid_from, "DESC"), (i.id, "ASC")),
    wide=(i.input, i.expected_output, i.metadata),
)
