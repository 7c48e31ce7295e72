"""Declares the table `dataset_items`."""

from sqlalchemy import ColumnElement, Text, and_, case, cast, exists, func, literal

from config.tables import dataset_items, datasets
from pipeline.tables.clickhouse_table import Filterable
from pipeline.tables.database_table import Field, Relational
from pipeline.types import Kind

items = dataset_items.alias("i")
named = datasets.alias("d")
i, d = items.c, named.c
status = cast(i.status, Text)
page = literal("/project/", Text()) + i.project_id + "/traces/" + i.source_trace_id


def counted(project_id: str) -> ColumnElement[bool]:
    """Keep a project's items as they are now: of versions that have no end the last, unless it is a deletion."""
    newer = dataset_items.alias("newer")
    superseded = exists().where(
        newer.c.project_id == project_id,
        newer.c.id == i.id,
        newer.c.valid_to.is_(None),
        newer.c.valid_from > i.valid_from,
    )
    return and_(i.project_id == project_id, i.valid_to.is_(None), i.is_deleted.is_(False), ~superseded)


DATASET_ITEMS = Relational(
    name="dataset_items",
    rows=items.outerjoin(named, and_(d.project_id == i.project_id, d.id == i.dataset_id)),
    counted=counted,
    fields=(
        Field("id", Kind.TEXT, i.id),
        Field("projectId", Kind.TEXT, i.project_id),
        Field("datasetId", Kind.TEXT, i.dataset_id),
        Field("sourceTraceId", Kind.TEXT, i.source_trace_id),
        Field("sourceObservationId", Kind.TEXT, i.source_observation_id),
        Field("status", Kind.TEXT, status),
        Field("createdAt", Kind.INSTANT, i.created_at),
        Field("updatedAt", Kind.INSTANT, i.updated_at),
        Field("validFrom", Kind.INSTANT, i.valid_from),
        Field("input", Kind.JSON, i.input),
        Field("expectedOutput", Kind.JSON, i.expected_output),
        Field("metadata", Kind.JSON, i.metadata),
        Field("datasetName", Kind.TEXT, d.name),
        Field(
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
