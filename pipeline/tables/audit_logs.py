"""Declares the table `audit_logs`."""

from sqlalchemy import Text, cast

from config.tables import audit_logs
from pipeline.tables.columns import DatabaseOutput, Filterable
from pipeline.tables.database_table import DatabaseTable
from pipeline.types import Kind

entries = audit_logs.alias("a")
a = entries.c
actor = cast(a.type, Text)

AUDIT_LOGS = DatabaseTable(
    name="audit_logs",
    rows=entries,
    is_current=lambda project_id: a.project_id == project_id,
    outputs=(
        DatabaseOutput("id", Kind.TEXT, a.id),
        DatabaseOutput("createdAt", Kind.INSTANT, a.created_at),
        DatabaseOutput("updatedAt", Kind.INSTANT, a.updated_at),
        DatabaseOutput("type", Kind.TEXT, actor),
        DatabaseOutput("apiKeyId", Kind.TEXT, a.api_key_id),
        DatabaseOutput("userId", Kind.TEXT, a.user_id),
        DatabaseOutput("orgId", Kind.TEXT, a.org_id),
        DatabaseOutput("userOrgRole", Kind.TEXT, a.user_org_role),
        DatabaseOutput("projectId", Kind.TEXT, a.project_id),
        DatabaseOutput("userProjectRole", Kind.TEXT, a.user_project_role),
        DatabaseOutput("resourceType", Kind.TEXT, a.resource_type),
        DatabaseOutput("resourceId", Kind.TEXT, a.resource_id),
        DatabaseOutput("action", Kind.TEXT, a.action),
        DatabaseOutput("before", Kind.MAYBE_JSON, a.before),
        DatabaseOutput("after", Kind.MAYBE_JSON, a.after),
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
