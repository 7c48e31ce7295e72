import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import Engine, create_engine, event, insert

from config.errors import Unavailable
from config.tables import comments, langfuse
from pipeline.enrich import comments as enrich_comments
from pipeline.enrich.comments import Comments


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'database'}")
    langfuse.create_all(engine)
    yield engine
    engine.dispose()


def batch(*ids: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(ids, pa.string())], names=["id"])


def comment(
    database: Engine, object_id: str, project: str = "p", kind: str = "TRACE", number: int = 0, content: str = "hi"
) -> None:
    values = {"id": f"c {object_id} {project} {kind} {number}", "project_id": project, "object_type": kind}
    with database.begin() as connection:
        connection.execute(insert(comments).values(object_id=object_id, content=content, **values))


def count_statements(database: Engine) -> list[str]:
    sent: list[str] = []

    @event.listens_for(database, "before_cursor_execute")
    def _(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    return sent


@pytest.fixture
def many_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat a single comment as more than are loaded at once."""
    monkeypatch.setattr(enrich_comments, "LOADED_COMMENTS", 0)


def test_few_comments_are_read_once_for_an_export(database: Engine) -> None:
    for each in ("a", "b"):
        comment(database, each)
    sent = count_statements(database)
    enrich = Comments(database, "p", "TRACE")
    cells = [enrich(batch(*ids)).column("comments").to_pylist() for ids in ("ab", "xa", "yz", "b")]
    assert [[len(json.loads(each)) for each in found] for found in cells] == [[1, 1], [0, 1], [0, 0], [1]]
    assert len(sent) == 2


def test_long_comments_are_read_with_their_objects_only(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("a", "b"):
        comment(database, each, content="éé")
    monkeypatch.setattr(enrich_comments, "LOADED_BYTES", 8)
    sent = count_statements(database)
    Comments(database, "p", "TRACE")
    assert len(sent) == 2
    monkeypatch.setattr(enrich_comments, "LOADED_BYTES", 7)
    enrich = Comments(database, "p", "TRACE")
    sent.clear()
    assert [len(json.loads(each)) for each in enrich(batch("b", "x")).column("comments").to_pylist()] == [1, 0]
    assert len(sent) == 1


def test_many_comments_on_one_object_are_read_only_with_it(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrich_comments, "LOADED_COMMENTS", 2)
    for number in range(3):
        comment(database, "a", number=number)
    enrich = Comments(database, "p", "TRACE")
    sent = count_statements(database)
    assert enrich(batch("b")).column("comments").to_pylist() == ["[]"]
    assert sent == []
    assert len(json.loads(enrich(batch("a")).column("comments")[0].as_py())) == 3


@pytest.mark.usefixtures("many_comments")
def test_one_statement_looks_up_a_whole_batch(database: Engine) -> None:
    comment(database, "id 7")
    enrich = Comments(database, "p", "TRACE")
    sent = count_statements(database)
    made = enrich(batch(*(f"id {number}" for number in range(9000))))
    assert len(sent) == 1
    found = [json.loads(each) for each in made.column("comments").to_pylist()]
    assert [len(each) for each in found] == [0] * 7 + [1] + [0] * 8992
    assert found[7][0]["content"] == "hi"


@pytest.mark.usefixtures("many_comments")
def test_only_what_has_comments_is_asked_about(database: Engine) -> None:
    comment(database, "a")
    enrich = Comments(database, "p", "TRACE")
    sent = count_statements(database)
    assert [len(json.loads(each)) for each in enrich(batch("b", "a")).column("comments").to_pylist()] == [0, 1]
    assert len(sent) == 1
    assert enrich(batch("b", "c")).column("comments").to_pylist() == ["[]", "[]"]
    assert len(sent) == 1


def test_no_comment_is_lost_where_more_comments_than_objects_may_be_kept(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrich_comments, "CACHED_IDS", 1)
    for each in ("a", "b", "c"):
        comment(database, each)
    enrich = Comments(database, "p", "TRACE")
    assert [len(json.loads(each)) for each in enrich(batch("a", "b", "c")).column("comments").to_pylist()] == [1, 1, 1]


def test_where_many_things_have_comments_each_batch_is_asked_about(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrich_comments, "CACHED_IDS", 1)
    monkeypatch.setattr(enrich_comments, "LOADED_COMMENTS", 1)
    for each in ("a", "b"):
        comment(database, each)
    enrich = Comments(database, "p", "TRACE")
    comment(database, "c")
    assert [len(json.loads(each)) for each in enrich(batch("c", "d", "a")).column("comments").to_pylist()] == [1, 0, 1]


def test_a_project_without_comments_is_asked_about_once(database: Engine) -> None:
    comment(database, "a", project="other")
    comment(database, "a", kind="SESSION")
    sent = count_statements(database)
    enrich = Comments(database, "p", "TRACE")
    assert len(sent) == 1
    assert enrich(batch("a", "b")).column("comments").to_pylist() == ["[]", "[]"]
    assert enrich(batch()).column("comments").to_pylist() == []
    assert len(sent) == 1


def test_texts_are_written_as_json(database: Engine) -> None:
    odd = "".join(map(chr, range(1, 128))) + "\x7f\x85\u2028é漢\U0001f600"
    created = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    values = {"id": odd, "project_id": "p", "object_type": "TRACE", "object_id": odd, "content": odd}
    with database.begin() as connection:
        connection.execute(insert(comments).values(**values, created_at=created))

    (cell,) = Comments(database, "p", "TRACE")(batch(odd)).column("comments").to_pylist()

    expected = {"id": odd, "content": odd, "author_email": None, "created_at": "2026-01-02T03:04:05.678Z"}
    assert cell == json.dumps([expected], ensure_ascii=False)


def test_python_handles_few_comments_at_a_time_and_their_order_stays(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrich_comments, "CHUNK_ROWS", 3)
    encode = enrich_comments._encode
    sizes = []

    def encode_counting(rows: Sequence[Any]) -> Any:
        sizes.append(len(rows))
        return encode(rows)

    monkeypatch.setattr(enrich_comments, "_encode", encode_counting)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    with database.begin() as connection:
        for number in range(11):
            values = {"id": f"c{number}", "project_id": "p", "object_type": "TRACE", "object_id": "ab"[number % 2]}
            connection.execute(
                insert(comments).values(**values, content="hi", created_at=began - timedelta(seconds=number))
            )

    cells = Comments(database, "p", "TRACE")(batch("a", "none", "b", "a")).column("comments").to_pylist()

    a, none, b, again = ([each["id"] for each in json.loads(cell)] for cell in cells)
    assert sizes == [3, 3, 3, 2]
    assert a == again == ["c10", "c8", "c6", "c4", "c2", "c0"]
    assert b == ["c9", "c7", "c5", "c3", "c1"]
    assert none == []


def test_a_database_that_fails_is_unavailable(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'missing' / 'database'}")
    with pytest.raises(Unavailable, match="unable to open the file of DATABASE_URL"):
        Comments(engine, "p", "TRACE")
    engine.dispose()
