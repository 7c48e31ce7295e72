"""The doctor names each right that a Postgres role lacks, with the statement that grants it."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, make_url, text

from cli.checks.database import find_problems
from cli.create import find_unknown
from config.settings import load
from config.tables import langfuse
from consumer.models import NewExport
from runtime.database import open_database
from runtime.migrations import migrate
from tests.services.postgres import Postgres
from tests.support.grants import MINIMAL_GRANTS, grant

ROLE = "exporter"


@pytest.fixture
def owner(postgres: Postgres) -> Iterator[Engine]:
    """A database with all tables, and a role with exactly the rights that docs/install.md lists."""
    with postgres.database() as database:
        engine = open_database(load(database.environment()).database)
        langfuse.create_all(engine)
        migrate(engine)
        role = role_of(engine)
        with engine.begin() as connection:
            connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        grant(engine, role)
        try:
            yield engine
        finally:
            with engine.begin() as connection:
                connection.execute(text(f"DROP OWNED BY {role}"))
                connection.execute(text(f"DROP ROLE {role}"))
            engine.dispose()


def role_of(owner: Engine) -> str:
    """Name the role by its database, because all databases of the server have the same roles."""
    return f"{ROLE}_{owner.url.database}"


@contextmanager
def as_role(owner: Engine) -> Iterator[Engine]:
    engine = open_database(make_url(owner.url).set(username=role_of(owner)))
    try:
        yield engine
    finally:
        engine.dispose()


def problems(owner: Engine) -> list[str]:
    with as_role(owner) as engine:
        return find_problems(engine)


def test_the_documented_grants_are_enough(owner: Engine) -> None:
    assert problems(owner) == []


@pytest.mark.parametrize(
    ("revoked", "named"),
    [
        ("UPDATE ON batch_exports", "GRANT UPDATE ("),
        ("SELECT ON batch_exports", "GRANT SELECT"),
        ("SELECT (id, name, email) ON users", "GRANT SELECT (id, name, email) ON users TO"),
        ("SELECT ON comments", "ON comments TO"),
        ("SELECT ON prices", "ON prices TO"),
        ("DELETE ON waybill_runs", "GRANT DELETE ON waybill_runs TO"),
        ("INSERT ON waybill_notices", "GRANT INSERT ON waybill_notices TO"),
        ("USAGE ON SEQUENCE waybill_outbox_id_seq", "GRANT USAGE ON SEQUENCE waybill_outbox_id_seq TO"),
    ],
)
def test_a_missing_right_is_named_with_the_statement_that_grants_it(owner: Engine, revoked: str, named: str) -> None:
    role = role_of(owner)
    rights, _, table = revoked.partition(" ON ")
    columns = "(status, finished_at, expires_at, url, log, updated_at) " if "UPDATE" in rights else ""
    with owner.begin() as connection:
        connection.execute(text(f"REVOKE {rights} {columns}ON {table} FROM {role}"))

    (problem,) = problems(owner)

    assert named in problem
    assert role in problem
    with owner.begin() as connection:
        connection.execute(text(problem.partition("`")[2].partition("`")[0]))
    assert problems(owner) == []


def test_each_statement_of_the_documented_grants_is_needed(owner: Engine) -> None:
    with owner.begin() as connection:
        for statement in MINIMAL_GRANTS:
            connection.execute(
                text(statement.replace("GRANT", "REVOKE").replace(" TO waybill", f" FROM {role_of(owner)}"))
            )

    assert len(problems(owner)) >= len(MINIMAL_GRANTS) - 2  # usage of the schema and connecting are everyone's


def test_row_security_that_hides_rows_is_named(owner: Engine) -> None:
    with owner.begin() as connection:
        connection.execute(text("ALTER TABLE batch_exports ENABLE ROW LEVEL SECURITY"))

    (problem,) = problems(owner)

    assert "row-level security" in problem
    assert "batch_exports" in problem


def test_a_missing_column_or_table_is_named_with_its_remedy(owner: Engine) -> None:
    with owner.begin() as connection:
        connection.execute(text("ALTER TABLE users DROP COLUMN email"))
        connection.execute(text("DROP TABLE waybill_notices"))

    found = problems(owner)

    assert any("users has no column email" in each for each in found)
    assert any("waybill_notices is missing: run `waybill migrate`" in each for each in found)


def test_a_read_only_server_is_named(owner: Engine) -> None:
    with owner.begin() as connection:
        connection.execute(text(f"ALTER ROLE {role_of(owner)} SET default_transaction_read_only = on"))

    (problem,) = problems(owner)

    assert "read-only" in problem


def test_in_another_schema_the_statements_of_the_doctor_give_all_rights(postgres: Postgres) -> None:
    schema, role = "Langfuse's", f"{ROLE}_{uuid.uuid4().hex[:12]}"
    with postgres.database() as database:
        url = load(database.environment()).database
        own = open_database(url, schema)
        with own.begin() as connection:
            connection.execute(text(f'CREATE SCHEMA "{schema}"'))
            connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        langfuse.create_all(own)
        migrate(own)
        exporter = open_database(url.set(username=role), schema)
        try:
            rounds = []
            while found := find_problems(exporter):
                rounds.append(found)
                assert len(rounds) < 3, found
                with own.begin() as connection:
                    for each in found:
                        connection.execute(text(re.findall("run `(.*)`", each.partition(", or correct")[0])[0]))
        finally:
            exporter.dispose()
            with own.begin() as connection:
                connection.execute(text(f"DROP OWNED BY {role}"))
                connection.execute(text(f"DROP ROLE {role}"))
            own.dispose()

    assert len(rounds[0]) == 1  # without the schema, nothing else can be seen
    assert all(f'"{schema}".' in each for each in rounds[1])
    assert find_problems_of_a_missing(postgres) == [
        "the schema nowhere does not exist: correct `schema` in DATABASE_URL"
    ]


def find_problems_of_a_missing(postgres: Postgres) -> list[str]:
    with postgres.database() as database:
        engine = open_database(load(database.environment()).database, "nowhere")
        try:
            return find_problems(engine)
        finally:
            engine.dispose()


def test_the_create_command_warns_of_an_unknown_project_only_if_it_may_read_projects(owner: Engine) -> None:
    new = NewExport(project_id="absent", user_id="nobody", name="n", query={}, format="CSV")

    with as_role(owner) as engine:
        without = list(find_unknown(engine, new))
        with owner.begin() as connection:
            connection.execute(text(f"GRANT SELECT (id) ON projects TO {role_of(owner)}"))
        with_right = list(find_unknown(engine, new))

    assert [each.split(",")[0] for each in without] == ["The database has no user nobody"]
    assert [each.split(",")[0] for each in with_right] == [
        "The database has no project absent",
        "The database has no user nobody",
    ]
