from typing import Any

from sqlalchemy import select

from pipeline.sql.clickhouse import bind_text
from pipeline.sql.named_values import PROJECT, bind_project
from pipeline.sql.statements import MOST_CHARACTERS, MOST_KEPT, CompiledStatements, Statement


class Counted:
    """Makes statements of any shape, and counts them."""

    def __init__(self) -> None:
        self.made = 0

    def statement(self, shape: object, project: str = "p", text: str = "t") -> Statement:
        def make() -> Any:
            self.made += 1
            return select(bind_project(project), bind_text(text))

        return Statement(shape, {PROJECT: project, "unused": 1}, make)


def test_only_the_named_values_of_a_kept_statement_change() -> None:
    counted, kept = Counted(), CompiledStatements()
    first = kept.compile(counted.statement("a", "one"), {})
    second = kept.compile(counted.statement("a", "two"), {})
    assert counted.made == 1
    assert second.sql == first.sql
    assert (first.parameters[PROJECT], second.parameters[PROJECT]) == ("one", "two")
    assert first.parameters.keys() == second.parameters.keys()


def test_the_statement_that_was_used_longest_ago_is_dropped_first() -> None:
    counted, kept = Counted(), CompiledStatements()
    for shape in range(MOST_KEPT):
        kept.compile(counted.statement(shape), {})
    kept.compile(counted.statement(0), {})
    kept.compile(counted.statement("new"), {})
    assert counted.made == MOST_KEPT + 1
    kept.compile(counted.statement(0), {})
    assert counted.made == MOST_KEPT + 1
    kept.compile(counted.statement(1), {})
    assert counted.made == MOST_KEPT + 2


def test_a_long_statement_is_not_kept() -> None:
    counted, kept = Counted(), CompiledStatements()
    for _ in range(2):
        kept.compile(counted.statement("long", text="x" * MOST_CHARACTERS), {})
    assert counted.made == 2


def test_a_statement_that_binds_a_named_value_by_another_name_too_is_not_kept() -> None:
    counted, kept = Counted(), CompiledStatements()
    kept.compile(counted.statement("a", project="one", text="one"), {})
    other = kept.compile(counted.statement("a", project="two", text="two"), {})
    assert counted.made == 2
    assert sorted(other.parameters.values()) == ["two", "two"]
