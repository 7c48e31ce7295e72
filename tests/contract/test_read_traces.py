"""Reading `traces` from ClickHouse, with comments from the SQL database."""

import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from config.errors import Cancelled, Rejected
from config.tables import comments, users
from pipeline.progress import Progress
from pipeline.types import Kind
from tests.oracle.traces import COLUMNS as FIXED
from tests.support.databases import MAY, Databases

pytestmark = pytest.mark.clickhouse


def test_a_row_has_the_columns_and_values_of_its_trace(databases: Databases) -> None:
    databases.traces(
        {
            "id": "t1",
            "timestamp": "2026-05-10 12:00:00.123",
            "name": "chat",
            "user_id": "u",
            "session_id": "s",
            "release": "r1",
            "version": "v1",
            "environment": "staging",
            "tags": ["a", "b,c"],
            "bookmarked": True,
            "public": False,
            "input": '{"q": "\\u00fc"}',
            "output": "not JSON",
            "metadata": {"a/b": "1", "k": '{"n": 12345678901234567890}', "e": ""},
        }
    )
    read = databases.read()
    assert tuple(column.name for column in read.columns) == FIXED
    assert read.rows == [
        {
            "id": "t1",
            "timestamp": datetime(2026, 5, 10, 12, 0, 0, 123000, tzinfo=UTC),
            "name": "chat",
            "userId": "u",
            "sessionId": "s",
            "release": "r1",
            "version": "v1",
            "environment": "staging",
            "tags": ["a", "b,c"],
            "bookmarked": True,
            "public": False,
            "input": '{"q": "\\u00fc"}',
            "output": "not JSON",
            "metadata": '{"a/b":"1","k":"{\\"n\\": 12345678901234567890}","e":""}',
            "comments": "[]",
            "input#json": True,
            "output#json": False,
        }
    ]


def test_missing_values_are_null_except_an_empty_name(databases: Databases) -> None:
    databases.traces({"name": ""})
    (row,) = databases.read().rows
    assert row["name"] == ""
    assert [name for name, value in row.items() if value is None] == [
        *("userId", "sessionId", "release", "version", "input", "output")
    ]
    assert (row["tags"], row["metadata"], row["environment"]) == ([], "{}", "default")
    assert (row["input#json"], row["output#json"]) == (False, False)


def test_metadata_is_nested_if_the_format_is_nested(databases: Databases) -> None:
    values = {
        "n": "1.10",
        "s": "text",
        "o": '{\n"a":\t[1]\r\n}',
        "big": "12345678901234567890",
        "x": "{",
        "b": "\ufeff1",
    }
    databases.traces({"metadata": values})
    tabular = databases.read(form="PARQUET").rows[0]["metadata"]
    nested = databases.read(form="JSONL").rows[0]["metadata"]
    assert json.loads(tabular) == values
    assert "\n" not in nested
    assert json.loads(nested, parse_float=str, parse_int=str) == {**values, "o": {"a": ["1"]}}


def test_columns_are_known_when_there_are_no_rows(databases: Databases) -> None:
    read = databases.read()
    assert (tuple(column.name for column in read.columns), read.rows, read.truncated) == (FIXED, [], False)


def test_only_the_latest_version_of_a_trace_is_read(databases: Databases) -> None:
    databases.traces({"name": "new", "event_ts": "2026-05-11 00:00:00.000"})
    databases.traces({"name": "old", "event_ts": "2026-05-09 00:00:00.000"})
    assert [row["name"] for row in databases.read().rows] == ["new"]
    assert databases.ids({"type": "string", "column": "name", "operator": "=", "value": "old"}) == []


def test_a_version_on_another_day_replaces_the_older_one(databases: Databases) -> None:
    databases.traces({"name": "new", "timestamp": "2026-03-01 00:00:00.000", "event_ts": "2026-05-11 00:00:00.000"})
    databases.traces({"name": "old"})
    assert [row["name"] for row in databases.read().rows] == ["new"]
    assert databases.ids({"type": "string", "column": "name", "operator": "=", "value": "old"}) == []


def test_a_deletion_on_another_day_deletes_the_trace(databases: Databases) -> None:
    databases.traces({"id": "gone"}, {"id": "stays"})
    databases.traces(
        {"id": "gone", "timestamp": "2026-05-09 00:00:00.000", "event_ts": "2026-05-11 00:00:00.000", "is_deleted": 1}
    )
    assert databases.ids() == ["stays"]


def test_a_deletion_in_another_partition_of_the_same_day_deletes_the_trace(databases: Databases) -> None:
    """A Date begins in 1970: earlier days become the same Date, but not the same partition."""
    databases.traces({"timestamp": "1970-01-01 00:00:00.000"})
    databases.traces({"timestamp": "1969-12-31 23:59:59.999", "event_ts": "2026-05-11 00:00:00.000", "is_deleted": 1})
    assert databases.ids() == []


def test_a_trace_written_again_after_its_deletion_is_back(databases: Databases) -> None:
    databases.traces({"is_deleted": 1})
    databases.traces({"timestamp": "2026-05-09 00:00:00.000", "event_ts": "2026-05-11 00:00:00.000"})
    assert databases.ids() == ["t"]


def test_the_later_day_counts_for_two_versions_with_one_event_time(databases: Databases) -> None:
    databases.traces({"name": "later", "timestamp": "2026-05-11 00:00:00.000"}, {"name": "earlier"})
    assert [row["name"] for row in databases.read().rows] == ["later"]


def test_a_filter_on_time_never_brings_back_an_older_version_of_the_same_day(databases: Databases) -> None:
    databases.traces({"timestamp": "2026-05-10 13:00:00.000"})
    databases.traces({"timestamp": "2026-05-10 11:00:00.000", "event_ts": "2026-05-11 00:00:00.000"})
    noon = {"type": "datetime", "column": "timestamp", "value": "2026-05-10T12:00:00Z"}
    assert databases.ids({**noon, "operator": ">="}) == []
    assert databases.ids({**noon, "operator": "<"}) == ["t"]


def test_rows_from_the_cutoff_on_are_left_out(databases: Databases) -> None:
    databases.traces(
        {"id": "before", "timestamp": "2026-05-31 23:59:59.999"},
        {"id": "at", "timestamp": "2026-06-01 00:00:00.000"},
        {"id": "after", "timestamp": "2026-06-02 00:00:00.000"},
    )
    assert databases.ids() == ["before"]


def test_rows_from_before_1970_are_read_filtered_and_sorted_like_others(databases: Databases) -> None:
    databases.traces(
        {"id": "moon", "timestamp": "1969-07-20 20:17:40.123"},
        {"id": "now"},
        {"id": "y2k", "timestamp": "2000-01-01 00:00:00"},
    )
    assert sorted(databases.ids()) == ["moon", "now", "y2k"]
    assert databases.ids(orderBy={"column": "timestamp", "order": "ASC"}) == ["moon", "y2k", "now"]
    assert databases.ids(orderBy={"column": "timestamp", "order": "DESC"}) == ["now", "y2k", "moon"]
    year = {"type": "datetime", "column": "timestamp"}
    assert databases.ids(
        {**year, "operator": "<", "value": "2010-01-01"}, orderBy={"column": "id", "order": "ASC"}
    ) == [
        "moon",
        "y2k",
    ]
    assert databases.ids(
        {**year, "operator": ">", "value": "1950-01-01"},
        {**year, "operator": "<=", "value": "1969-07-20T20:17:40.123Z"},
    ) == ["moon"]
    assert databases.ids(
        {**year, "operator": ">=", "value": "1970-01-01"}, orderBy={"column": "id", "order": "ASC"}
    ) == [
        "now",
        "y2k",
    ]


def test_no_row_score_or_comment_of_another_project_is_read(databases: Databases) -> None:
    for project in ("p", "q"):
        databases.traces({"project_id": project, "name": f"of {project}"})
        databases.scores({"project_id": project, "name": f"of {project}"})
        with databases.engine.begin() as connection:
            connection.execute(
                insert(comments).values(
                    id=f"c {project}", project_id=project, object_type="TRACE", object_id="t", content=project
                )
            )
    # A newer version in another project must not replace this one.
    databases.traces({"project_id": "q", "event_ts": "2026-05-12 00:00:00.000", "timestamp": "2026-05-12 00:00:00.000"})
    (row,) = databases.read(project="p").rows
    assert row["name"] == "of p"
    assert [each["content"] for each in json.loads(row["comments"])] == ["p"]
    assert [column.name for column in databases.read(project="p").columns][len(FIXED) :] == ["of p"]


def test_scores_become_columns_of_lists(databases: Databases) -> None:
    databases.traces({"id": "t"}, {"id": "u"})
    databases.scores(
        {"name": "acc", "value": 0.5},
        {"name": "acc", "value": 0.25, "execution_trace_id": "x"},
        {"name": "acc", "value": 1, "execution_trace_id": "y", "trace_id": "u"},
        {"name": "acc", "value": 0, "execution_trace_id": "y", "trace_id": "u"},
        {"name": "ok", "value": 1, "data_type": "BOOLEAN", "string_value": "True", "observation_id": "o"},
        {"name": "ok", "value": 0, "data_type": "BOOLEAN", "string_value": "False"},
        {"name": "cat", "value": 2, "data_type": "CATEGORICAL", "string_value": "b"},
        {"name": "cat", "value": 1, "data_type": "CATEGORICAL", "string_value": "z"},
        {"name": "note", "value": 0, "data_type": "TEXT", "string_value": "hm"},
        {"name": "fix", "data_type": "CORRECTION", "long_string_value": "never exported"},
        {"name": "elsewhere", "trace_id": None, "session_id": "s"},
    )
    read = databases.read()
    assert [(column.name, column.kind) for column in read.columns][len(FIXED) :] == [
        (name, Kind.LIST) for name in ("acc", "cat", "elsewhere", "note", "ok")
    ]
    t, u = ([row[name] for name in ("acc", "cat", "elsewhere", "note", "ok")] for row in read.rows)
    assert t == [[0.25, 0.5], ["z", "b"], None, ["hm"], [0.0, 1.0]]
    assert u == [[0.5], None, None, None, None]


def test_a_score_counts_once_in_its_latest_version_and_not_when_deleted(databases: Databases) -> None:
    later = {"event_ts": "2026-05-11 00:00:00.000"}
    databases.traces({})
    databases.scores({"id": "a", "value": 1, **later}, {"id": "b", "value": 1}, {"id": "c", "name": "gone"})
    databases.scores({"id": "a", "value": 9}, {"id": "b", "value": 2, "name": "renamed", **later})
    databases.scores({"id": "c", "name": "gone", "timestamp": "2026-05-09 00:00:00.000", "is_deleted": 1, **later})
    read = databases.read()
    assert [column.name for column in read.columns][len(FIXED) :] == ["renamed", "s"]
    assert (read.rows[0]["s"], read.rows[0]["renamed"]) == ([1.0], [2.0])


def test_a_score_from_after_the_cutoff_gives_neither_name_nor_value(databases: Databases) -> None:
    databases.traces({})
    late = {"created_at": "2026-06-01 00:00:00.001"}
    databases.scores({"value": 1}, {"value": 2, "execution_trace_id": "x", **late}, {"name": "late", **late})
    read = databases.read()
    assert [column.name for column in read.columns][len(FIXED) :] == ["s"]
    assert read.rows[0]["s"] == [1.0]


def test_score_names_may_be_anything(databases: Databases) -> None:
    names = [
        "id",
        "scores.id",
        "input#json",
        "10",
        'a,b"c',
        "😀",
        "{x:String}",
        "%s",
        "back\\slash",
        "tab\tnew\nline",
        "'; --",
        "ü" * 300,
    ]
    databases.traces({})
    databases.scores(*({"name": name, "value": index} for index, name in enumerate(names)))
    read = databases.read()
    columns = [column.name for column in read.columns]
    assert len(columns) == len(FIXED) + len(names)
    for index, name in enumerate(names):
        place = columns.index("scores.scores.id" if name == "id" else name)
        assert read.batches[0].column(place).to_pylist() == [[float(index)]], name


def test_a_name_with_numbers_and_texts_is_a_list_of_json_values(databases: Databases) -> None:
    databases.traces({"id": "t"}, {"id": "u"}, {"id": "v"})
    databases.scores(
        {"name": "m", "value": 0.5},
        {"name": "m", "value": 7, "data_type": "CATEGORICAL", "string_value": 'say "hi"\n\\'},
        {"name": "m", "value": 3, "trace_id": "v"},
    )
    read = databases.read()
    assert read.columns[len(FIXED)].kind is Kind.MIXED
    t, u, v = (row["m"] for row in read.rows)
    assert (json.loads(t), u, json.loads(v)) == ([0.5, 'say "hi"\n\\'], None, [3])


def test_comments_come_in_order_with_their_authors_address(databases: Databases) -> None:
    databases.traces({"id": "t"}, {"id": "u"})
    at = datetime(2026, 5, 1, 10, 0, 0, 5000, tzinfo=UTC)
    common = {"project_id": "p", "object_type": "TRACE", "object_id": "t"}
    with databases.engine.begin() as connection:
        connection.execute(insert(users).values(id="ann", name="Ann", email="ann@example.org"))
        connection.execute(
            insert(comments),
            [
                {**common, "id": "c3", "content": "third", "author_user_id": None, "created_at": at.replace(day=2)},
                {**common, "id": "c2", "content": 'se"cönd\n', "author_user_id": "gone", "created_at": at},
                {**common, "id": "c1", "content": "first", "author_user_id": "ann", "created_at": at},
                {
                    **common,
                    "id": "c4",
                    "content": "x",
                    "author_user_id": None,
                    "created_at": at,
                    "object_type": "SESSION",
                },
            ],
        )
    t, u = (json.loads(row["comments"]) for row in databases.read().rows)
    assert t == [
        {"id": "c1", "content": "first", "author_email": "ann@example.org", "created_at": "2026-05-01T10:00:00.005Z"},
        {"id": "c2", "content": 'se"cönd\n', "author_email": None, "created_at": "2026-05-01T10:00:00.005Z"},
        {"id": "c3", "content": "third", "author_email": None, "created_at": "2026-05-02T10:00:00.005Z"},
    ]
    assert u == []


def test_invalid_utf8_becomes_replacement_characters(databases: Databases) -> None:
    databases.client.command(
        f"INSERT INTO traces (id, project_id, timestamp, name, event_ts, input, tags, metadata) VALUES"
        f" ('ok', 'p', '{MAY}', 'ü', '{MAY}', NULL, [], map()),"
        f" ('bad', 'p', '{MAY}', unhex('61ff62'), '{MAY}', unhex('22c328'), [unhex('ff'), 'x'], map('k', unhex('fe')))"
    )
    bad, ok = databases.read(form="JSONL").rows
    assert (bad["name"], bad["input"], bad["input#json"], bad["tags"]) == (
        "a\ufffdb",
        '"\ufffd(',
        False,
        ["\ufffd", "x"],
    )
    assert json.loads(bad["metadata"]) == {"k": "\ufffd"}
    assert (ok["name"], ok["input"]) == ("ü", None)


def test_a_row_limit_truncates_and_is_recorded(databases: Databases) -> None:
    databases.traces(*({"id": f"t{number:02}"} for number in range(10)))
    cut, whole = databases.read(limit=7), databases.read(limit=10)
    assert (cut.ids(), cut.truncated) == ([f"t{number:02}" for number in range(7)], True)
    assert (len(whole.rows), whole.truncated) == (10, False)


def test_rows_of_megabytes_are_read_in_batches_of_bounded_size(databases: Databases) -> None:
    databases.client.command(
        "INSERT INTO traces (id, project_id, timestamp, name, event_ts, input) SELECT toString(number), 'p',"
        f" '{MAY}', 'n', '{MAY}', concat(repeat('x', 1000000), repeat('y', 1000000)) FROM numbers(100)"
    )
    read = databases.read()
    assert len(read.rows) == 100
    assert max(batch.nbytes for batch in read.batches) <= 64 << 20


def test_rows_are_counted_while_read_and_a_stop_ends_the_read(databases: Databases) -> None:
    databases.client.command(
        "INSERT INTO traces (id, project_id, timestamp, name, event_ts, input) SELECT toString(number), 'p',"
        f" '{MAY}', 'n', '{MAY}', repeat('x', 1000) FROM numbers(30000)"
    )
    progress = Progress()
    assert (len(databases.read(progress=progress).rows), progress.rows) == (30000, 30000)
    stopping = Progress()
    with pytest.raises(Cancelled):
        databases.read(progress=stopping, each=lambda _: stopping.stop())
    assert 0 < stopping.rows < 30000


def test_two_reads_give_the_same_order(databases: Databases) -> None:
    databases.traces(
        *(
            {
                "id": f"t{number * 7919 % 100:02}",
                "name": "ab"[number % 2],
                "timestamp": f"2026-05-{1 + number % 9:02} 00:00:00",
            }
            for number in range(100)
        )
    )
    order = {"column": "Name", "order": "DESC"}
    first, second = databases.ids(orderBy=order), databases.ids(orderBy=order)
    assert first == second
    names = {row["id"]: row["name"] for row in databases.read().rows}
    assert [names[each] for each in first] == ["b"] * 50 + ["a"] * 50


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (
            {"filter": [{"type": "number", "column": "speed", "operator": ">", "value": 1}]},
            "'speed' can't be filtered by in traces. Columns that can: bookmarked, id,",
        ),
        (
            {"filter": [{"type": "number", "column": "name", "operator": ">", "value": 1}]},
            "takes no filter of type 'number'. Types that it takes: null, string, stringOptions",
        ),
        (
            {"orderBy": {"column": "tags", "order": "ASC"}},
            "can't be sorted by 'tags'. Columns that it can: bookmarked, id,",
        ),
    ],
)
def test_an_invalid_query_is_rejected_by_name(databases: Databases, query: dict[str, object], told: str) -> None:
    with pytest.raises(Rejected, match=told.replace("(", r"\(")):
        databases.read(**query)  # type: ignore[arg-type] # query is JSON
