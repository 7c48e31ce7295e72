from datetime import UTC, datetime

from pipeline.query.words import in_words
from pipeline.spec import read_spec


def words(limit: int | None = None, **query: object) -> str:
    return in_words(
        read_spec(
            project_id="p",
            export_id="e",
            attempt=1,
            created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            query={"tableName": "traces", "filter": None, "orderBy": None, **query},
            format="CSV",
            row_limit=limit,
        )
    )


def test_a_plain_export_is_said_plainly() -> None:
    assert words() == "traces created before 2026-01-02T03:04:05.000Z"


def test_everything_that_narrows_the_export_is_said() -> None:
    filters = [
        {"column": "name", "type": "stringOptions", "operator": "any of", "value": ["a", "b"]},
        {"column": "metadata", "type": "stringObject", "operator": "contains", "key": "k", "value": "v"},
        {"column": "version", "type": "null", "operator": "is null", "value": ""},
        {"column": "timestamp", "type": "datetime", "operator": ">", "value": "2026-01-01T00:00:00Z"},
    ]
    order = {"column": "timestamp", "order": "DESC"}
    assert words(limit=1500000, filter=filters, searchQuery="it's", searchType=["input", "id"], orderBy=order) == (
        "traces created before 2026-01-02T03:04:05.000Z and name any of ('a', 'b') and metadata.k contains 'v' and "
        'version is null and timestamp > 2026-01-01T00:00:00.000Z and with "it\'s" in input or id, '
        "sorted by timestamp, descending, 1,500,000 rows at most"
    )


def test_long_lists_are_cut() -> None:
    options = {
        "column": "id",
        "type": "stringOptions",
        "operator": "any of",
        "value": [str(each) for each in range(1020)],
    }
    assert words(filter=[options]).endswith("'19', and 1,000 more)")


def test_what_a_filter_compares_with_is_said_exactly() -> None:
    filters = [
        {"column": "timestamp", "type": "datetime", "operator": "<", "value": "2026-01-01T00:00:00.000001Z"},
        {"column": "bookmarked", "type": "boolean", "operator": "=", "value": True},
        {"column": "positionInTrace", "type": "positionInTrace", "operator": "=", "key": "root"},
        {"column": "positionInTrace", "type": "positionInTrace", "operator": "=", "key": "nthFromEnd", "value": 2},
    ]
    assert words(tableName="observations", filter=filters, useEventsTable=True) == (
        "observations of the events table created before 2026-01-02T03:04:05.000Z and "
        "timestamp < 2026-01-01T00:00:00.000001Z and bookmarked = true and positionInTrace is root and "
        "positionInTrace.nthFromEnd = 2"
    )
