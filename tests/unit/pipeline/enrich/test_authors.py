from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import Engine, create_engine, insert

from config.errors import Unavailable
from config.tables import langfuse, users
from pipeline.enrich.authors import Authors


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'database'}")
    langfuse.create_all(engine)
    yield engine
    engine.dispose()


def batch(*ids: str | None) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(ids, pa.string())], names=["#authorUserId"])


def test_authors_have_the_names_that_they_gave_themselves(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(insert(users), [{"id": "a", "name": "Ann"}, {"id": "b", "name": None}])
    made = Authors(database)(batch("a", None, "b", "gone", "nul\x00", "a"))
    assert made.column("authorUserName").to_pylist() == ["Ann", None, None, None, None, "Ann"]


def test_rows_without_authors_ask_nobody(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'missing' / 'database'}")
    assert Authors(engine)(batch(None, None)).column("authorUserName").to_pylist() == [None, None]
    with pytest.raises(Unavailable, match="unable to open the file of DATABASE_URL"):
        Authors(engine)(batch("a"))
    engine.dispose()
