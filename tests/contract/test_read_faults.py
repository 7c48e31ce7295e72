"""Reading while ClickHouse fails: an incomplete result is never taken for a complete one."""

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import psutil
import pytest

from config.errors import Cancelled, Unavailable
from pipeline.progress import Progress
from pipeline.read.clickhouse_errors import StatementRefused
from pipeline.read.connections import ClickHouse
from tests.contract.clickhouse_proxy import Fault, proxy
from tests.services.stacks import Servers
from tests.support.daemons import eventually
from tests.support.databases import Databases, open_databases

pytestmark = pytest.mark.clickhouse

END = 8
MEMORY = b"Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED) (version 26.9.2.1)\n"
TAGGED = b"\r\n__exception__\r\nabcdefghijklmnop\r\n" + MEMORY + b"100 abcdefghijklmnop\r\n__exception__\r\n"
SYNTAX = b"Code: 62. DB::Exception: Syntax error: failed at position 1. (SYNTAX_ERROR) (version 26.9.2.1)\n"

Change = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def databases(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    with servers.stack(tmp_path_factory.mktemp("faults")) as stack, open_databases(stack.databases()) as databases:
        databases.traces(*({"id": f"t{number}", "input": "x" * 100} for number in range(1000)))
        yield databases


@contextlib.contextmanager
def through(databases: Databases, fault: Fault) -> Iterator[Databases]:
    clickhouse = databases.sources.clickhouse
    with proxy(clickhouse.url, fault) as url:
        yield replace(databases, sources=replace(databases.sources, clickhouse=replace(clickhouse, url=url)))


def test_all_rows_arrive_through_the_proxy(databases: Databases) -> None:
    with through(databases, Fault()) as proxied:
        assert len(proxied.read().rows) == 1000


@pytest.mark.parametrize("whole", [True, False], ids=["clean end", "connection cut"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda body: body[: len(body) // 2], id="inside a message"),
        pytest.param(lambda body: body[:-END], id="between messages, before the end of the stream"),
        pytest.param(lambda body: body[: -END // 2], id="inside the end of the stream"),
        pytest.param(lambda body: body[: len(body) // 2] + MEMORY, id="exception inside a message"),
        pytest.param(lambda body: body[:-END] + MEMORY, id="exception between messages"),
        pytest.param(lambda body: body[:-END] + TAGGED, id="tagged exception between messages"),
        pytest.param(lambda body: body + MEMORY, id="exception behind the end of the stream"),
        pytest.param(lambda body: body + b"x", id="a byte behind the end of the stream"),
        pytest.param(lambda _: b"", id="nothing at all"),
        pytest.param(lambda _: MEMORY, id="nothing but an exception"),
    ],
)
def test_an_incomplete_response_is_unavailable(databases: Databases, change: Change, whole: bool) -> None:
    with through(databases, Fault(change, whole)) as proxied, pytest.raises(Unavailable) as raised:
        proxied.read()
    if MEMORY in change(b"" * END) or b"MEMORY" in change(b"x" * 100):
        assert "MEMORY_LIMIT_EXCEEDED" in str(raised.value)


def test_a_connection_cut_after_a_complete_stream_is_unavailable(databases: Databases) -> None:
    with through(databases, Fault(whole=False)) as proxied, pytest.raises(Unavailable):
        proxied.read()


def test_a_statement_that_the_server_refuses_is_a_bug(databases: Databases) -> None:
    with (
        through(databases, Fault(lambda _: SYNTAX)) as proxied,
        pytest.raises(StatementRefused, match="Syntax error"),
    ):
        proxied.read()


def test_a_missing_server_is_unavailable(databases: Databases) -> None:
    nowhere = replace(databases.sources, clickhouse=ClickHouse("http://127.0.0.1:9"))
    with pytest.raises(Unavailable, match="can't be reached"):
        replace(databases, sources=nowhere).read()


def test_a_stop_ends_a_read_from_a_silent_server_immediately_and_kills_its_query(databases: Databases) -> None:
    fault, progress = Fault(silent=True), Progress()

    def stop() -> None:
        assert fault.asked.wait(10)
        progress.stop()

    with through(databases, fault) as proxied:
        stopping = threading.Thread(target=stop)
        stopping.start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            proxied.read(progress=progress)
        stopping.join()
    assert time.monotonic() - began < 5
    assert len(fault.killed) == 1


def test_an_export_stopped_before_it_began_reads_nothing(databases: Databases) -> None:
    progress = Progress()
    progress.stop()
    with pytest.raises(Cancelled):
        databases.read(progress=progress)


def test_exports_share_the_settings_learned_from_their_server(databases: Databases) -> None:
    fault = Fault()
    with through(databases, fault) as proxied:
        assert [len(proxied.read().rows) for _ in range(3)] == [1000, 1000, 1000]
    assert len(fault.learned) == 1


def test_an_export_leaves_no_connection_open(databases: Databases) -> None:
    with through(databases, Fault()) as proxied:
        port = urlsplit(proxied.sources.clickhouse.url).port
        gc.disable()
        try:
            assert len(proxied.read().rows) == 1000
            ours = psutil.Process().net_connections()
        finally:
            gc.enable()
    assert [each for each in ours if each.status == "ESTABLISHED" and each.raddr.port == port] == []


def test_concurrent_exports_share_no_client(databases: Databases) -> None:
    fault = Fault(silent=True)
    with through(databases, fault) as proxied:
        reading = [threading.Thread(target=proxied.read) for _ in range(2)]
        for each in reading:
            each.start()
        eventually(lambda: len(fault.learned) == 2, what="each connects by itself, for none has ended")
        fault.released.set()
        for each in reading:
            each.join()


def test_settings_are_learned_again_after_a_failure(databases: Databases) -> None:
    fault = Fault(whole=False)
    with through(databases, fault) as proxied:
        with pytest.raises(Unavailable):
            proxied.read()
        fault.whole = True
        assert len(proxied.read().rows) == 1000
    assert len(fault.learned) == 2
