"""Declares the table `audit_logs`."""

from sqlalchemy import Text, cast

from config.tables import audit_logs
from pipeline.tables.clickhouse_table import Filterable
from pipeline.tables.database_table import Field, Relational
from pipeline.types import Kind

entries = audit_logs.alias("a")
a = entries.c
actor = cast(a.type, Text)

AUDIT_LOGS = Relational(
    name="audit_logs",
    rows=entries,
    counted=lambda project_id: a.project_id == project_id,
    fields=(
        Field("id", Kind.TEXT, a.id),
        Field("createdAt", Kind.INSTANT, a.created_at),
        Field("updatedAt", Kind.INSTANT, a.updated_at),
        Field("type", Kind.TEXT, actor),
        Field("apiKeyId", Kind.TEXT, a.api_key_id),
        Field("userId", Kind.TEXT, a.user_id),
        Field("orgId", Kind.TEXT, a.org_id),
        Field("userOrgRole", Kind.TEXT, a.user_org_role),
        Field("projectId", Kind.TEXT, a.project_id),
        Field("userProjectRole", Kind.TEXT, a.user_project_role),
        Field("resourceType", Kind.TEXT, a.resource_type),
        Field("resourceId", Kind.TEXT, a.resource_id),
        Field("action", Kind.TEXT, a.action),
        Field("before", Kind.MAYBE_JSON, a.before),
        Field("after", Kind.MAYBE_JSON, a.after),
    ),
    filterables=(
        Filterable("createdAt", (), "datetime", a.created_at),
        Filterable("type", (), "stringOptions", actor),
        Filterable("userId", (), "stringOptions", a.user_id),
        Filterable("apiKeyId", (), "stringOptions", a.api_key_id),
        Filterable("resourceType", (), "stringOptions", a.resource_type),
        Filterable("resourceId", (), "stringOptions", a.resource_id),
        Filterable("action", (), "stringOptions", a.action),
    ),
    searched={"id": (a.id, a.resource_id, a.user_id, a.api_key_id), "content": (a.before, a.after)},
    moment=a.created_at,
    identity=a.id,
    order=((a.created_at, "DESC"), (a.id, "ASC")),
    wide=(a.before, a.after),
)
