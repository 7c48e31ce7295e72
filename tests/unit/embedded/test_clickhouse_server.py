import csv
import gzip
import io
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlsplit

import lz4.frame  # type: ignore[import-untyped]  # it ships no types
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from embedded.stack import Stack
from tests.unit.embedded.conftest import Connect

END_OF_STREAM = bytes.fromhex("ffffffff00000000")
UNCOMPRESSED = {"output_format_arrow_compression_method": "none"}
LONG = "SELECT count() FROM numbers(1000000000000) WHERE number % 7 = 3"
SECONDS = 30.0


def fetch(url: str, body: bytes | None = None, **headers: str) -> tuple[Any, bytes]:
    request = urllib.request.Request(url, body, {name.replace("_", "-"): value for name, value in headers.items()})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers, answer.read()


def fetch_error(url: str, body: bytes, **headers: str) -> tuple[int, Any, str]:
    """Return status, headers and body of a failing request."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(url, body, **headers)
    with caught.value as error:
        return error.status or 0, error.headers, error.read().decode()


def running(client: Any, query_id: str) -> bool:
    sql = "SELECT count() FROM system.processes WHERE query_id = {id:String}"
    return bool(client.query(sql, parameters={"id": query_id}).result_rows[0][0])


def wait_until(client: Any, query_id: str, *, runs: bool) -> None:
    deadline = time.monotonic() + SECONDS
    while running(client, query_id) is not runs:
        assert time.monotonic() < deadline, f"the query {'did not start' if runs else 'did not stop'}"
        time.sleep(0.05)


def test_clickhouse_connect_works_with_it(connect: Connect) -> None:
    client = connect(username="anyone", password="anything")
    assert client.ping()
    assert client.command("SELECT 5") == 5
    assert client.query("SELECT 1 AS a, 'x' AS b, NULL AS c").named_results().__next__() == {
        "a": 1,
        "b": "x",
        "c": None,
    }


def test_health_paths_respond(embedded: Stack) -> None:
    assert fetch(f"{embedded.clickhouse}/ping")[1] == b"Ok.\n"
    assert fetch(f"{embedded.clickhouse}/replicas_status")[1] == b"Ok.\n"


def test_parameters_arrive_unchanged(client: Any) -> None:
    awkward = 'it\'s "quoted" \\ back\\\\slash \t tab \n line \\N \\t 日本 😀 {x:String} %s'
    sql = "SELECT {text:String}, {list:Array(String)}, {number:UInt64}, {none:Nullable(String)}, {time:DateTime64(3)}"
    values = {
        "text": awkward,
        "list": [awkward, ""],
        "number": 2**64 - 1,
        "none": None,
        "time": datetime(2025, 1, 2, 3, 4, 5, 678000, UTC),
    }
    row = client.query(sql, parameters=values).result_rows[0]
    assert row == (awkward, [awkward, ""], 2**64 - 1, None, datetime(2025, 1, 2, 3, 4, 5, 678000))  # noqa: DTZ001 (no zone)


def test_a_parameter_of_many_megabytes_is_sent_as_a_form(connect: Connect) -> None:
    client = connect(form_encode_query_params=True)
    ids = [f"trace-{number:030}" for number in range(20_000)]
    values = {"ids": ids, "text": "x\\\n" * 3_000_000}
    counted = client.query("SELECT {ids:Array(String)}[-1], length({text:String})", parameters=values)
    assert counted.result_rows == [(ids[-1], 9_000_000)]


def test_a_response_of_several_blocks_is_complete_with_wait_end_of_query(client: Any) -> None:
    found = client.query("SELECT number, toString(number) FROM numbers(200000)").result_rows
    assert found == [(number, str(number)) for number in range(200_000)]


def test_queries_by_curl_respond_in_the_requested_format(embedded: Stack) -> None:
    url, sql = embedded.clickhouse, "SELECT 1 AS a, 'x' AS b"
    assert fetch(f"{url}/?query={quote(sql)}")[1] == b"1\tx\n"
    assert fetch(url, sql.encode())[1] == b"1\tx\n"
    assert fetch(url, f"{sql} FORMAT CSV;".encode())[1] == b'1,"x"\n'
    assert fetch(url, f"{sql} FORMAT CSV SETTINGS max_threads = 1".encode())[1] == b'1,"x"\n'
    assert fetch(f"{url}/?default_format=JSONEachRow", sql.encode())[1] == b'{"a":1,"b":"x"}\n'
    assert fetch(url, sql.encode(), X_ClickHouse_Format="CSVWithNames")[1] == b'"a","b"\n1,"x"\n'
    assert fetch(f"{url}/?query={quote('SELECT 1 AS a,')}", b"2 AS b")[1] == b"1\t2\n"
    assert json.loads(fetch(url, f"{sql} FORMAT JSON".encode())[1])["data"] == [{"a": 1, "b": "x"}]


def test_headers_contain_query_id_format_and_time_zone(embedded: Stack) -> None:
    headers, _ = fetch(f"{embedded.clickhouse}/?query_id=mine", b"SELECT 1 FORMAT CSV")
    assert headers["X-ClickHouse-Query-Id"] == "mine"
    assert headers["X-ClickHouse-Format"] == "CSV"
    assert headers["X-ClickHouse-Timezone"] == "UTC"
    assert "read_rows" in json.loads(headers["X-ClickHouse-Summary"])


def test_a_long_document_with_a_header_is_complete(embedded: Stack) -> None:
    sql = b"SELECT number AS n FROM numbers(200000) FORMAT CSVWithNames"
    rows = list(csv.reader(io.StringIO(fetch(embedded.clickhouse, sql)[1].decode())))
    assert rows[0] == ["n"]
    assert [int(row[0]) for row in rows[1:]] == list(range(200_000))


def test_settings_and_database_apply_to_one_query(embedded: Stack, client: Any, database: str) -> None:
    sql = "SELECT getSetting('max_threads'), currentDatabase()"
    default = fetch(embedded.clickhouse, sql.encode())[1]
    assert client.query(sql, settings={"max_threads": 77}).result_rows == [(77, database)]
    assert fetch(embedded.clickhouse, sql.encode())[1] == default
    assert b"77" not in default


def test_an_arrow_response_is_one_stream_of_bounded_batches(client: Any) -> None:
    sql = "SELECT number AS n, toString(number) AS s, CAST('l', 'LowCardinality(String)') AS l FROM numbers(300000)"
    content = client.raw_stream(sql, fmt="ArrowStream", settings=UNCOMPRESSED).read()
    with pa.ipc.open_stream(content) as reader:
        batches = list(reader)
    assert len(batches) > 3
    assert max(batch.nbytes for batch in batches) < 8 << 20
    table = pa.Table.from_batches(batches)
    assert table.column("n").to_pylist() == list(range(300_000))
    assert table.column("s")[299_999].as_py() == "299999"
    assert content.endswith(END_OF_STREAM)
    assert content.count(END_OF_STREAM) == 1


def test_an_arrow_stream_without_rows_has_its_schema(client: Any) -> None:
    content = client.raw_query("SELECT number AS n FROM numbers(10) WHERE n > 10", fmt="ArrowStream")
    with pa.ipc.open_stream(content) as reader:
        assert reader.schema.names == ["n"]
        assert reader.read_all().num_rows == 0


@pytest.mark.parametrize(
    ("sql", "code", "status"),
    [
        ("SELECT unknown", 47, 404),
        ("SELECT * FROM unknown", 60, 404),
        ("SELEC 1", 62, 400),
        ("SELECT 1 SETTINGS unknown = 1", 115, 404),
        ("SELECT throwIf(1)", 395, 500),
        ("INSERT INTO unknown FORMAT CSV 1", 60, 404),
        ("SELECT {x:String}", 456, 400),
    ],
)
def test_an_error_has_its_code_and_text(embedded: Stack, sql: str, code: int, status: int) -> None:
    got, headers, body = fetch_error(embedded.clickhouse, sql.encode())
    assert got == status
    assert headers["X-ClickHouse-Exception-Code"] == str(code)
    assert body.startswith(f"Code: {code}. DB::Exception: ")
    assert body.count("DB::Exception") == 1
    assert "(version " in body


@pytest.mark.parametrize(
    ("url", "headers", "code"),
    [
        ("/?unknown_setting=1", {}, 115),
        ("/?bad-name=1", {}, 115),
        ("/?database=unknown", {}, 81),
        ("/", {"Content_Encoding": "zip"}, 48),
        ("/", {"Content_Encoding": "gzip"}, 117),
    ],
)
def test_a_bad_request_is_reported(embedded: Stack, url: str, headers: dict[str, str], code: int) -> None:
    _, got, _ = fetch_error(embedded.clickhouse + url, b"SELECT 1", **headers)
    assert got["X-ClickHouse-Exception-Code"] == str(code)


def test_a_client_raises_the_error_of_the_server(client: Any) -> None:
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE") as caught:
        client.query("SELECT * FROM unknown")
    assert caught.value.code == 60
    assert client.command("SELECT 1") == 1


def test_an_exception_within_a_response_is_appended_to_its_body(client: Any) -> None:
    sql = "SELECT throwIf(number = 300000), number FROM numbers(1000000)"
    content = client.raw_stream(sql, fmt="TabSeparated").read().decode()
    rows, marker, text = content.partition("\r\n__exception__\r\n")
    assert rows.startswith("0\t0\n0\t1\n")
    assert marker
    assert "Code: 395. DB::Exception: " in text
    with pytest.raises(StreamFailureError, match="395"), client.query_row_block_stream(sql) as blocks:
        for _ in blocks:
            pass


def test_an_error_is_a_status_with_wait_end_of_query(embedded: Stack) -> None:
    _, headers, _ = fetch_error(
        f"{embedded.clickhouse}/?wait_end_of_query=1", b"SELECT throwIf(number = 300000) FROM numbers(1000000)"
    )
    assert headers["X-ClickHouse-Exception-Code"] == "395"


def test_rows_are_inserted_unchanged(client: Any) -> None:
    client.command("CREATE TABLE t (a UInt64, b Nullable(String), c Decimal(18, 12)) ENGINE = MergeTree ORDER BY a")
    rows = [(number, None if number % 2 else f"é{number}", Decimal("0.000000000001")) for number in range(20_000)]
    summary = client.insert("t", rows, column_names=["a", "b", "c"])
    assert summary.written_rows == 20_000
    assert client.query("SELECT * FROM t ORDER BY a").result_rows == rows


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("lz4", lz4.frame.compress), ("identity", bytes)],
)
def test_data_is_inserted_by_url_and_body_in_any_encoding(
    embedded: Stack, client: Any, database: str, encoding: str, compress: Any
) -> None:
    client.command("CREATE TABLE t (a UInt64, `format` String) ENGINE = MergeTree ORDER BY a")
    lines = b"".join(b'{"a":%d,"format":"x"}\n' % number for number in range(50_000))
    sql = quote("INSERT INTO t (a, `format`) FORMAT JSONEachRow")
    url = f"{embedded.clickhouse}/?database={database}&query={sql}"
    headers, _ = fetch(url, compress(lines), Content_Encoding=encoding)
    assert json.loads(headers["X-ClickHouse-Summary"])["written_rows"] == "50000"
    whole = b"INSERT INTO t FORMAT JSONEachRow\n" + lines
    fetch(f"{embedded.clickhouse}/?database={database}", compress(whole), Content_Encoding=encoding)
    assert client.query("SELECT count(), sum(a) FROM t").result_rows == [(100_000, 49_999 * 50_000)]


def test_values_and_selects_are_inserted_as_sql(client: Any) -> None:
    client.command("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    client.command("INSERT INTO t VALUES (1, 'FORMAT CSV'), (2, 'it''s')")
    client.command("INSERT INTO t (a, b) SELECT number + 3, 'VALUES' FROM numbers(2)")
    assert client.query("SELECT * FROM t ORDER BY a").result_rows == [
        (1, "FORMAT CSV"),
        (2, "it's"),
        (3, "VALUES"),
        (4, "VALUES"),
    ]


def test_an_insert_that_cannot_be_read_is_an_error(client: Any) -> None:
    client.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(DatabaseError, match="Cannot parse"):
        client.raw_insert("t", ["a"], b'{"a":"x"}', fmt="JSONEachRow")
    assert client.command("SELECT count() FROM t") == 0


def test_large_responses_progress_concurrently(connect: Connect) -> None:
    received: list[int] = []

    def drain(number: int) -> None:
        client = connect()
        with client.query_row_block_stream("SELECT number, repeat('x', 500) FROM numbers(300000)") as blocks:
            received.extend(number for _ in blocks)

    threads = [threading.Thread(target=drain, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert received.count(0) == received.count(1) > 2
    first_end = min(len(received) - received[::-1].index(number) for number in range(2))
    assert {0, 1} == set(received[:first_end])


def test_a_query_is_killed_by_its_id_and_reports_it(embedded: Stack, client: Any) -> None:
    failures: list[str] = []
    url = f"{embedded.clickhouse}/?query_id=to-be-killed"
    thread = threading.Thread(target=lambda: failures.append(fetch_error(url, LONG.encode())[2]))
    thread.start()
    wait_until(client, "to-be-killed", runs=True)
    client.command("KILL QUERY WHERE query_id = 'to-be-killed' ASYNC")
    thread.join(SECONDS)
    assert failures[0].startswith("Code: 394. ")


def test_a_disconnected_client_stops_its_query(embedded: Stack, client: Any) -> None:
    address = urlsplit(embedded.clickhouse)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        head = f"POST /?query_id=left-alone HTTP/1.1\r\nHost: here\r\nContent-Length: {len(LONG)}\r\n\r\n"
        connection.sendall((head + LONG).encode())
        wait_until(client, "left-alone", runs=True)
    wait_until(client, "left-alone", runs=False)


def test_a_reset_connection_stops_its_query_within_the_response(embedded: Stack, client: Any) -> None:
    address = urlsplit(embedded.clickhouse)
    sql = "SELECT number, repeat('x', 1000) FROM numbers(1000000000)"
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        head = f"POST /?query_id=reset HTTP/1.1\r\nHost: here\r\nContent-Length: {len(sql)}\r\n\r\n"
        connection.sendall((head + sql).encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert running(client, "reset")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(client, "reset", runs=False)
