"""Parses an HTTP request into a statement, with the data to insert if there is any."""

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from itertools import chain
from urllib.parse import parse_qsl

from embedded.clickhouse import errors
from embedded.clickhouse.statement import ExternalTable, Statement

# Parameters of the HTTP interface itself; every other parameter of the URL is a setting of the query.
INTERFACE_PARAMETERS = frozenset(
    {
        "query", "database", "default_format", "query_id", "user", "password", "quota_key", "role",
        "session_id", "session_timeout", "session_check", "client_protocol_version", "stacktrace",
        "compress", "decompress", "enable_http_compression", "http_zlib_compression_level",
        "wait_end_of_query", "buffer_size", "send_progress_in_http_headers",
        "http_headers_progress_interval_ms", "cancel_http_readonly_queries_on_client_close",
    }
)  # fmt: skip
PARAMETER_PREFIX = "param_"
HEAD_BYTES = 1 << 16
TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# INSERT INTO <anything but a select> FORMAT <name> or VALUES; quoted and bracketed parts are skipped.
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
    """A client's request; `insert_format` is the format of `data`, or empty when nothing is inserted."""

    statement: Statement
    insert_format: str
    data: Iterator[bytes]
    wait_end_of_query: bool


def parse_request(url_query: str, headers: Message, body: Iterator[bytes]) -> Request:
    """Parse the URL, the headers and the SQL at the start of the body. Raises ServerError."""
    arguments = dict(parse_qsl(url_query, keep_blank_values=True))
    content_type = headers.get("Content-Type", "")
    files: dict[str, bytes] = {}
    if content_type.startswith("multipart/form-data"):
        fields, files = _parse_form(content_type, b"".join(body))
        arguments |= fields
        body = iter(())
    external_tables = tuple(_external_table(name, data, arguments) for name, data in files.items())
    if query := arguments.get("query"):
        body = chain((f"{query}\n".encode(),), body)
    head = _read_head(body)
    insert = INSERT_DATA.match(head)
    data = chain((head[insert.end() :],), body) if insert else iter(())
    sql = insert["into"] if insert else head + b"".join(body)
    return Request(
        statement=_statement(sql, arguments, headers, external_tables),
        insert_format=(insert["format"] or b"Values").decode() if insert else "",
        data=data,
        wait_end_of_query=arguments.get("wait_end_of_query") == "1",
    )


def _external_table(name: str, data: bytes, arguments: dict[str, str]) -> ExternalTable:
    """Remove the table's description from the arguments: `<name>_structure` or `<name>_types`, and `<name>_format`."""
    if not TABLE_NAME.fullmatch(name):
        raise errors.ServerError(errors.INCORRECT_DATA, f"Not a table name: {name!r}. (INCORRECT_DATA)")
    types = arguments.pop(f"{name}_types", "")
    numbered = ", ".join(f"_{place} {each}" for place, each in enumerate(types.split(",") if types else (), start=1))
    structure = arguments.pop(f"{name}_structure", numbered)
    if not structure:
        raise errors.ServerError(errors.INCORRECT_DATA, f"The table {name} has no structure. (INCORRECT_DATA)")
    return ExternalTable(name, structure, arguments.pop(f"{name}_format", "TabSeparated"), data)


def _statement(
    sql: bytes, arguments: Mapping[str, str], headers: Message, external_tables: tuple[ExternalTable, ...]
) -> Statement:
    settings = {name: value for name, value in arguments.items() if name not in INTERFACE_PARAMETERS}
    try:
        text = sql.decode()
    except UnicodeDecodeError as error:
        raise errors.ServerError(errors.SYNTAX_ERROR, f"The query is not UTF-8: {error}. (SYNTAX_ERROR)") from error
    return Statement(
        sql=text,
        query_id=arguments.get("query_id") or str(uuid.uuid4()),
        database=headers.get("X-ClickHouse-Database", arguments.get("database", "")),
        default_format=headers.get("X-ClickHouse-Format", arguments.get("default_format", "TabSeparated")),
        params={
            name[len(PARAMETER_PREFIX) :]: value
            for name, value in settings.items()
            if name.startswith(PARAMETER_PREFIX)
        },
        settings={name: value for name, value in settings.items() if not name.startswith(PARAMETER_PREFIX)},
        external_tables=external_tables,
    )


def _read_head(body: Iterator[bytes]) -> bytes:
    head = bytearray()
    for block in body:
        head += block
        if len(head) >= HEAD_BYTES:
            break
    return bytes(head)


def _parse_form(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the fields and the files of a form."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if not boundary:
        raise errors.ServerError(errors.INCORRECT_DATA, "The form has no boundary. (INCORRECT_DATA)")
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for part in body.split(b"\r\n--" + boundary[1].encode()):
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'\bname="([^"]*)"', head)
        if name and b"filename=" in head:
            files[name[1].decode()] = value
        elif name:
            fields[name[1].decode()] = value.decode()
    return fields, files
