"""Runs the revisions on the connection of `migrate`; Alembic loads this file by its name."""

from alembic import context

from runtime.migrations import VERSION_TABLE

given = context.config.attributes
context.configure(connection=given["connection"], version_table=VERSION_TABLE, version_table_schema=given["schema"])
context.run_migrations()
