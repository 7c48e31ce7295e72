"""Replicas that take turns: an export reads from one of them, and a name that appears in between is never dropped."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from config.errors import Unavailable
from pipeline.read import http_session
from tests.support.databases import Databases
from tests.support.http_proxy import Forward, Request, Response, http_proxy

pytestmark = pytest.mark.clickhouse

LAGGING = "lagging"
NOT_FOUND = b"Code: 372. DB::Exception: Session not found. (SESSION_NOT_FOUND) (version 26.9.2.1)"


@dataclass
class Replicas:
    """Servers with a database each, of which each request gets the next one.

    A session is known to the server alone that began it. Without `sessions` its parameters are lost on the way.
    """

    databases: tuple[str, ...]
    sessions: bool = True
    turns: Iterator[int] = field(default_factory=count)
    known: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    answering: int = 0

    def refuses(self, request: Request) -> bool:
        """Give the request its server, and return whether that one refuses it."""
        self.answering = next(self.turns) % len(self.databases)
        given = dict(parse_qsl(urlsplit(request.path).query))
        wanted = given.get("session_id")
        if wanted is None or not self.sessions:
            return False
        if given.get("session_check") == "1" and self.known.get(wanted) != self.answering:
            self.refused += 1
            return True
        self.known[wanted] = self.answering
        return False

    def direct(self, request: Request) -> Request:
        parts = urlsplit(request.path)
        given = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "database"]
        path = f"{parts.path}?{urlencode([*given, ('database', self.databases[self.answering])])}"
        headers = {name: value for name, value in request.headers.items() if name.lower() != "x-clickhouse-database"}
        return replace(request, path=path, headers=headers)


def not_found(_: Forward) -> Response:
    headers = {"X-ClickHouse-Exception-Code": "372", "Content-Length": str(len(NOT_FOUND))}
    return Response(404, headers, iter([NOT_FOUND]))


@pytest.fixture
def replicated(databases: Databases) -> Databases:
    """Two traces with a score each, of which a lagging replica has the first ones."""
    client, database = databases.client, databases.client.database
    databases.traces({"id": "t1"})
    databases.scores({"id": "s1", "trace_id": "t1", "name": "first"})
    client.command(f"CREATE DATABASE IF NOT EXISTS {LAGGING}")
    for table in ("traces", "scores", "observations", "events_full", "dataset_run_items_rmt"):
        client.command(f"DROP TABLE IF EXISTS {LAGGING}.{table}")
        client.command(f"CREATE TABLE {LAGGING}.{table} AS {database}.{table}")
        client.command(f"INSERT INTO {LAGGING}.{table} SELECT * FROM {database}.{table}")
    databases.traces({"id": "t2"})
    databases.scores({"id": "s2", "trace_id": "t2", "name": "second"})
    return databases


@contextmanager
def behind(databases: Databases, replicas: Replicas) -> Iterator[Databases]:
    source = databases.sources.clickhouse
    with http_proxy(source.url) as proxy:
        proxy.add(replicas.refuses, not_found)
        proxy.change = replicas.direct
        yield replace(databases, sources=replace(databases.sources, clickhouse=replace(source, url=proxy.url)))


@pytest.mark.parametrize("first", range(4))
def test_names_and_rows_are_those_of_one_replica(replicated: Databases, first: int) -> None:
    replicas = Replicas((str(replicated.client.database), LAGGING), turns=count(first))
    with behind(replicated, replicas) as through:
        read = through.read(form="PARQUET")

    names = {column.name for column in read.columns} & {"first", "second"}
    assert (set(read.ids()), names) in [({"t1"}, {"first"}), ({"t1", "t2"}, {"first", "second"})]
    assert replicas.refused


def find_refusal(databases: Databases, first: int) -> str | None:
    """Read without sessions, from the replica `first` on, and return the reason if that fails."""
    replicas = Replicas((str(databases.client.database), LAGGING), sessions=False, turns=count(first))
    with behind(databases, replicas) as through:
        try:
            through.read(form="PARQUET")
        except Unavailable as error:
            return str(error)
    return None


def test_a_name_that_was_not_listed_fails_the_attempt(replicated: Databases) -> None:
    (refusal,) = [found for first in range(2) if (found := find_refusal(replicated, first)) is not None]
    assert "the names of scores changed" in refusal


def test_servers_that_no_statement_reaches_twice_are_named(
    replicated: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_session, "TRIES", 3)
    replicas = Replicas((str(replicated.client.database),) * 40)
    with behind(replicated, replicas) as through, pytest.raises(Unavailable, match="no statement reached"):
        through.read()
