"""Filters and orders by comments, which are looked up in the SQL database and sent to ClickHouse."""

from sqlalchemy import insert

from config.tables import comments
from tests.support.databases import Databases, Row


def comment(databases: Databases, *written: tuple[str, str], project: str = "p", kind: str = "TRACE") -> None:
    rows = [
        {"id": f"{project} {kind} {object_id} {place}", "object_id": object_id, "content": content}
        for place, (object_id, content) in enumerate(written)
    ]
    with databases.engine.begin() as connection:
        connection.execute(insert(comments), [{**row, "project_id": project, "object_type": kind} for row in rows])


def ids(databases: Databases, *filters: Row) -> list[str]:
    return sorted(databases.ids(*filters))


def count(operator: str, value: float) -> Row:
    return {"type": "number", "column": "commentCount", "operator": operator, "value": value}


def content(operator: str, value: str) -> Row:
    return {"type": "string", "column": "Comment Content", "operator": operator, "value": value}


AWKWARD = "a\tb\nc\rd\\n'\"%_ü😀\\"


def test_rows_are_filtered_by_the_number_of_their_comments(databases: Databases) -> None:
    databases.traces({"id": "none"}, {"id": AWKWARD}, {"id": "two"})
    comment(databases, (AWKWARD, "x"), ("two", "x"), ("two", "y"), ("elsewhere", "x"))
    comment(databases, ("none", "x"), project="q")
    comment(databases, ("none", "x"), kind="OBSERVATION")
    assert ids(databases, count("=", 0)) == ["none"]
    assert ids(databases, count(">=", 1)) == [AWKWARD, "two"]
    assert ids(databases, count("<", 2), count(">", 0)) == [AWKWARD]
    assert databases.ids(orderBy={"column": "commentCount", "order": "DESC"}) == ["two", AWKWARD, "none"]


def test_one_matching_comment_is_enough_and_case_is_ignored(databases: Databases) -> None:
    databases.traces({"id": "none"}, {"id": "one"}, {"id": "two"})
    comment(databases, ("one", "Looks GOOD to me"), ("two", "bad"), ("two", "100% a_b"))
    assert ids(databases, content("contains", "good")) == ["one"]
    assert ids(databases, content("does not contain", "good")) == ["none", "two"]
    assert ids(databases, content("starts with", "LOOKS")) == ["one"]
    assert ids(databases, content("ends with", "A_B")) == ["two"]
    assert ids(databases, content("contains", "_o")) == []
    assert ids(databases, content("=", "BAD")) == ["two"]
    assert ids(databases, content("contains", "a"), content("contains", "%")) == ["two"]
    assert ids(databases, content("contains", "\0")) == []


def test_case_is_ignored_in_every_alphabet(databases: Databases) -> None:
    databases.traces({"id": "one"}, {"id": "two"})
    comment(databases, ("one", "ÜBER"), ("two", "я"))
    assert ids(databases, content("contains", "übe")) == ["one"]
    assert ids(databases, content("=", "Я")) == ["two"]
    options: Row = {"type": "stringOptions", "column": "commentContent", "operator": "any of", "value": ["über"]}
    assert ids(databases, options) == ["one"]


def test_comments_are_filtered_by_options_and_by_their_absence(databases: Databases) -> None:
    databases.traces({"id": "none"}, {"id": "one"}, {"id": "two"})
    comment(databases, ("one", "Yes"), ("two", "no"), ("two", "maybe"))
    options: Row = {
        "type": "stringOptions",
        "column": "commentContent",
        "value": ["YES", "\0", *map(str, range(40_000))],
    }
    assert ids(databases, {**options, "operator": "any of"}) == ["one"]
    assert ids(databases, {**options, "operator": "none of"}) == ["none", "two"]
    null: Row = {"type": "null", "column": "commentContent", "value": ""}
    assert ids(databases, {**null, "operator": "is null"}) == ["none"]
    assert ids(databases, {**null, "operator": "is not null"}) == ["one", "two"]


def test_fifty_thousand_objects_with_comments_can_be_filtered(databases: Databases) -> None:
    databases.client.command(
        "INSERT INTO traces (id, project_id, timestamp, name, event_ts, is_deleted) "
        "SELECT toString(number), 'p', toDateTime64('2026-05-10 12:00:00', 3), 'n', now64(3), 0 FROM numbers(50002)"
    )
    comment(databases, *((str(number), "x") for number in range(50_000)))
    assert len(ids(databases, content("contains", "x"))) == 50_000
    assert ids(databases, count("<", 1)) == ["50000", "50001"]
