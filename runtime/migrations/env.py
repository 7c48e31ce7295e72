"""Runs the revisions on the connection of `migrate`; Alembic loads this file by its name."""

from alembic import context

from runtime.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
