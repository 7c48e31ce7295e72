"""Turns an HTTP request into a statement, and data if it brings some."""

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from itertools import chain
from urllib.parse import parse_qsl

from cli.embedded.clickhouse import errors
from cli.embedded.clickhouse.engine import Statement

# What the HTTP interface itself understands; every other parameter of the URL is a setting of the query.
OF_THE_INTERFACE = frozenset(
    {
        "query", "database", "default_format", "query_id", "user", "password", "quota_key", "role",
        "session_id", "session_timeout", "session_check", "client_protocol_version", "stacktrace",
        "compress", "decompress", "enable_http_compression", "http_zlib_compression_level",
        "wait_end_of_query", "buffer_size", "send_progress_in_http_headers",
        "http_headers_progress_interval_ms", "cancel_http_readonly_queries_on_client_close",
    }
)  # fmt: skip
PARAM = "param_"
HEAD = 1 << 16
# INSERT INTO <anything but a select> FORMAT <name> or VALUES; quoted and bracketed parts are skipped as wholes.
INSERT_DATA = re.compile(
    rb"""\s*(?P<into>INSERT\s+INTO\b(?:
        '(?:\\.|[^'\\])*' | `[^`]*` | "[^"]*" | \((?:`[^`]*`|"[^"]*"|'[^']*'|[^()])*\)
        | (?!\b(?:SELECT|VALUES|WITH|FORMAT)\b)[^'"`()]
    )*)
    \b(?:FORMAT\s+(?P<format>\w+)[^\S\n]*\n?|VALUES\b)""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Request:
    """What a client asks for; `insert_format` names the format of `data`, and is empty when nothing is inserted."""

    statement: Statement
    insert_format: str
    data: Iterator[bytes]
    wait_end_of_query: bool


def parse(url_query: str, headers: Message, body: Iterator[bytes]) -> Request:
    """Read the URL, the headers and as much of the body as is SQL. Raises ServerError."""
    arguments = dict(parse_qsl(url_query, keep_blank_values=True))
    content_type = headers.get("Content-Type", "")
    if content_type.startswith("multipart/form-data"):
        arguments |= _form(content_type, b"".join(body))
        body = iter(())
    if query := arguments.get("query"):
        body = chain((f"{query}\n".encode(),), body)
    head = _head(body)
    insert = INSERT_DATA.match(head)
    data = chain((head[insert.end() :],), body) if insert else iter(())
    sql = insert["into"] if insert else head + b"".join(body)
    return Request(
        statement=_statement(sql, arguments, headers),
        insert_format=(insert["format"] or b"Values").decode() if insert else "",
        data=data,
        wait_end_of_query=arguments.get("wait_end_of_query") == "1",
    )


def _statement(sql: bytes, arguments: Mapping[str, str], headers: Message) -> Statement:
    settings = {name: value for name, value in arguments.items() if name not in OF_THE_INTERFACE}
    try:
        text = sql.decode()
    except UnicodeDecodeError as error:
        raise errors.ServerError(errors.SYNTAX_ERROR, f"The query is not UTF-8: {error}. (SYNTAX_ERROR)") from error
    return Statement(
        sql=text,
        query_id=arguments.get("query_id") or str(uuid.uuid4()),
        database=headers.get("X-ClickHouse-Database", arguments.get("database", "")),
        default_format=headers.get("X-ClickHouse-Format", arguments.get("default_format", "TabSeparated")),
        params={name[len(PARAM) :]: value for name, value in settings.items() if name.startswith(PARAM)},
        settings={name: value for name, value in settings.items() if not name.startswith(PARAM)},
    )


def _head(body: Iterator[bytes]) -> bytes:
    head = bytearray()
    for piece in body:
        head += piece
        if len(head) >= HEAD:
            break
    return bytes(head)


def _form(content_type: str, body: bytes) -> dict[str, str]:
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if not boundary:
        raise errors.ServerError(errors.INCORRECT_DATA, "A form without a boundary. (INCORRECT_DATA)")
    return dict(_fields(body, b"--" + boundary[1].encode()))


def _fields(body: bytes, delimiter: bytes) -> Iterator[tuple[str, str]]:
    for part in body.split(delimiter)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'\bname="([^"]*)"', head)
        if not name or b"filename=" in head:
            raise errors.ServerError(errors.NOT_IMPLEMENTED, "External data is not supported here. (NOT_IMPLEMENTED)")
        yield name[1].decode(), value.removesuffix(b"\r\n").decode()
