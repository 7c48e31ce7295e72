"""ClickHouse runs out of memory: the statement runs again with less of it, and then the user is told what to narrow."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from config.errors import Rejected, Unavailable
from pipeline.progress import Progress
from pipeline.read import open_table
from pipeline.read.clickhouse_errors import NARROW
from pipeline.spec import read_spec
from tests.oracle import worlds
from tests.oracle.pools import PROJECTS
from tests.oracle.queries import queries
from tests.services.stacks import Servers
from tests.support.agreement import Filled, cached_lookups, fill_databases
from tests.support.databases import CUTOFF, Databases
from tests.support.http_proxy import Request, Responder, Response, http_proxy
from tests.support.responses import end_at
from tests.support.selection import reads_rows
from tests.support.tables import READINGS

pytestmark = pytest.mark.clickhouse

QUERY = "Query memory limit exceeded: would use 401.00 MiB, maximum: 400.00 MiB. (MEMORY_LIMIT_EXCEEDED)"
TOTAL = "(total) memory limit exceeded: would use 4.01 GiB, maximum: 4.00 GiB. (MEMORY_LIMIT_EXCEEDED)"
EXPORT = "e"
"""The id of all exports here."""


def fail(text: str, code: int = 241) -> Responder:
    body = f"Code: {code}. DB::Exception: {text} (version 26.9.2.1)".encode()
    headers = {"X-ClickHouse-Exception-Code": str(code), "Content-Length": str(len(body))}
    return lambda _: Response(500, headers, iter([body]))


@dataclass
class Short:
    """Databases behind a server that is short of memory, and the statements that read rows."""

    databases: Databases
    statements: list[Request] = field(default_factory=list)

    def read(self, attempt: int) -> int:
        """Read all traces, and return how many there are."""
        query = {"tableName": "traces", "filter": None, "orderBy": None}
        spec = read_spec(
            project_id="p", export_id=EXPORT, attempt=attempt, created_at=CUTOFF, query=query, format="JSONL"
        )
        with open_table(spec, self.databases.sources, Progress()) as table:
            return sum(batch.num_rows for batch in table.batches)


@pytest.fixture
def short(databases: Databases) -> Iterator[Callable[..., Short]]:
    databases.traces(*({"id": f"t{number}", "input": "x" * 100} for number in range(3000)))
    databases.scores({"trace_id": "t1"})
    with http_proxy(databases.sources.clickhouse.url) as proxy:
        source = replace(databases.sources.clickhouse, url=proxy.url)
        behind = replace(databases, sources=replace(databases.sources, clickhouse=source))

        def make(respond: Responder, times: int = 100) -> Short:
            made = Short(behind)

            def is_of_rows(request: Request) -> bool:
                if reads_rows(request):
                    made.statements.append(request)
                return reads_rows(request)

            proxy.add(is_of_rows, respond, times=times)
            return made

        yield make


def test_a_statement_that_takes_too_much_memory_runs_again_with_less(short: Callable[..., Short]) -> None:
    scarce = short(fail(QUERY), times=1)

    assert scarce.read(attempt=1) == 3000
    first, second = (request.path for request in scarce.statements)
    assert "join_algorithm=hash" in first
    assert "join_algorithm=grace_hash" in second
    assert "max_threads=1" in second


def test_an_export_that_needs_too_much_memory_is_refused_and_not_repeated(short: Callable[..., Short]) -> None:
    scarce = short(fail(QUERY))

    with pytest.raises(Rejected) as raised:
        scarce.read(attempt=1)
    assert str(raised.value) == NARROW
    assert len(scarce.statements) == 2


@pytest.mark.parametrize(
    "respond", [fail(TOTAL), end_at(0.5, lambda: iter([b"Code: 241. DB::Exception: " + TOTAL.encode()]))]
)
def test_a_server_without_memory_is_tried_again_twice(short: Callable[..., Short], respond: Responder) -> None:
    scarce = short(respond)

    for attempt in (1, 2):
        with pytest.raises(Unavailable) as unavailable:
            scarce.read(attempt)
        assert unavailable.value.advice == NARROW
    scarce.statements.clear()
    with pytest.raises(Rejected) as rejected:
        scarce.read(attempt=3)
    assert str(rejected.value) == NARROW
    (statement,) = scarce.statements
    assert "join_algorithm=grace_hash" in statement.path


def test_a_limit_of_rows_in_the_profile_is_refused_by_name(short: Callable[..., Short]) -> None:
    scarce = short(fail("Limit for result exceeded, max rows: 1.00 thousand. (TOO_MANY_ROWS_OR_BYTES)", 396))

    with pytest.raises(Rejected, match="larger than the limits"):
        scarce.read(attempt=1)
    assert len(scarce.statements) == 1


@pytest.fixture(scope="module")
def rows(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with servers.stack(tmp_path_factory.mktemp("memory")) as stack, fill_databases(stack, worlds.make(3)) as filled:
        filled.databases.sources.clickhouse.scarce.add(EXPORT)
        yield filled


def test_files_that_are_read_with_bounded_memory_are_the_expected_ones(rows: Filled) -> None:
    for table, events in READINGS:
        query = {"tableName": table, "filter": None, "orderBy": None, "useEventsTable": events}
        for form in ("JSONL", "PARQUET"):
            assert rows.problems(PROJECTS[0], query, form) == [], (table, form)


@pytest.fixture(scope="module")
def many(rows: Filled) -> Iterator[Filled]:
    with cached_lookups():
        yield rows


@pytest.mark.parametrize("table", ["traces", "observations", "scores", "events", "dataset_run_items"])
@seed(3)
@settings(
    max_examples=settings().max_examples // 4 or 1,  # test_read_agreement compares the same queries
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_queries_that_are_read_with_bounded_memory_give_the_expected_rows(
    many: Filled, table: str, data: st.DataObject
) -> None:
    project = data.draw(st.sampled_from(PROJECTS))
    query = data.draw(queries(many.table(project, table, events=False), use_events_table=False))
    assert many.problems(project, query, "JSONL") == []
