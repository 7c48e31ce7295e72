"""Opens the Langfuse database, gives connections for reading and for writing, and translates database faults."""

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from config.database_url import PoolLimits
from config.errors import Unavailable

BUSY_SECONDS = 10
SILENT_SECONDS = 60
"""A connection is dead when the server sends nothing for this long."""

KEPT_CONNECTIONS = 10
"""Connections above this number are closed after use."""

_WRITES = "waybill_writes"
_SCHEMAS = "schema_translate_map"
_WRITING = "; ".join(
    f"SET LOCAL {name} = '{value}'"
    for name, value in {
        "lock_timeout": f"{BUSY_SECONDS}s",
        "idle_in_transaction_session_timeout": f"{BUSY_SECONDS}s",
        "TimeZone": "UTC",  # the defaults of columns are local times of the session
    }.items()
)
_CONNECT_ARGS = {
    "application_name": "waybill",
    "connect_timeout": BUSY_SECONDS,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": SILENT_SECONDS * 1000,
}
# The files with the authorities that a system trusts, where Python does not know one: Debian's, Red Hat's, Alpine's.
_AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_ROOT_FILE = "~/.postgresql/root.crt"
_FIXED_ARGS = {
    "client_encoding": "utf8",  # a role or a database may have another default, in which not every text can be written
    "prepare_threshold": None,  # a statement is prepared on one connection, and a pooler may change it
}

# SQLSTATEs, or the classes that they begin with, of faults that do not come from our statement: connection lost,
# authorization, rollback (serialization, deadlock), out of resources, wrong object state (locked), operator
# intervention (shutdown, timeout), system error; and read-only transaction, idle transaction timeout, missing
# database, missing permission.
_TRANSIENT = ("08", "28", "40", "53", "55", "57", "58", "25006", "25P03", "3D000", "42501")

# Why a connection can't be made, by the text of libpq, which has no SQLSTATE for it; and the remedy.
_CONNECTION_FAULTS = {
    r"Connection refused": "connection refused: is DATABASE_URL right, and is the server running?",
    r"timeout expired|Operation timed out": "timeout: is DATABASE_URL right, and may this host connect to the server?",
    r"failed to resolve host|could not translate host name|Name or service not known|nodename nor servname": (
        "the host of DATABASE_URL can't be resolved: is its name right?"
    ),
    r"password authentication failed|no password supplied": (
        "it rejects the login: are user and password of DATABASE_URL right?"
    ),
    r"no pg_hba.conf entry": "its pg_hba.conf does not let this user connect from this host: add an entry",
    r"role .* does not exist": "the user of DATABASE_URL does not exist: create the role",
    r"database .* does not exist": "the database of DATABASE_URL does not exist: is its name right?",
    r"unsupported startup parameter": (
        "the pooler refuses a startup parameter: remove `options` from DATABASE_URL, or let the pooler ignore it"
    ),
    r"statement pooling mode": (
        "the pooler allows no transactions: set pool_mode of this database to transaction, or to session"
    ),
    r"root certificate file .* does not exist|could not read root certificate file|to locate root certificate file": (
        "the CA file of sslrootcert, or of sslcert without sslkey, in DATABASE_URL can't be read: is its path right? "
        "sslaccept=strict without either means the CAs of the system, or of SSL_CERT_FILE"
    ),
    r"does not match host name": (
        "its certificate is for another host name: does the host of DATABASE_URL have the name of the certificate?"
    ),
    r"certificate verify failed": (
        "its certificate is not trusted: is its certificate authority in the file of sslrootcert in DATABASE_URL or, "
        "without sslrootcert, in the file that SSL_CERT_FILE names, and has it not expired?"
    ),
    r"requires a valid client certificate": (
        "it requires a client certificate: do sslcert and sslkey in DATABASE_URL name the files of one?"
    ),
    r"certificate authentication failed": (
        "it does not accept the certificate for this user: is the name in the file of sslcert that of the user of "
        "DATABASE_URL?"
    ),
    r"key values mismatch": "the key of sslkey in DATABASE_URL does not belong to the certificate of sslcert",
    r"has group or world access": (
        "others may read the file of sslkey in DATABASE_URL: make it 0600, or 0640 if it belongs to root"
    ),
    r"private key file": (
        "the file of sslkey in DATABASE_URL can't be read: is it the PEM file of a private key, and if that is "
        "encrypted, is sslpassword right?"
    ),
    r"server at .*(closed the connection|invalid response)": (
        "it closed the connection: are host and port of DATABASE_URL right?"
    ),
    r"does not support SSL": "it does not support TLS: is sslmode in DATABASE_URL right?",
    r"too many clients|remaining connection slots|too many connections": (
        "it has no free connection: raise max_connections, or use fewer pods"
    ),
    r"unable to open database file": "unable to open the file of DATABASE_URL: is its folder there, and writable?",
    r"readonly database": "the file of DATABASE_URL is read-only: make it writable",
}
_CONNECTION_STATES = ("08", "28", "3D000", "53300")
_SQLITE_PERMANENT = ("SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_MISUSE", "SQLITE_RANGE")


def open_database(url: URL, schema: str | None = None, pool: PoolLimits | None = None) -> Engine:
    """Return an engine for the Langfuse database; it connects when it is first used.

    Statements name the tables of Postgres with `schema`, if there is one. No state of a session is used, because a
    pooler may run each transaction on another connection. SQLite is set up for several processes: a write-ahead log,
    and waiting for the lock instead of an error. Reading a time or a text never raises: times that Python can't hold
    become the first or the last datetime, and bytes that are not UTF-8 become U+FFFD.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    limits = pool or PoolLimits()
    kept = min(KEPT_CONNECTIONS, limits.most)
    engine = create_engine(
        _name_authorities(url),
        pool_pre_ping=True,
        pool_size=kept,
        max_overflow=limits.most - kept,
        pool_timeout=limits.wait_seconds,
        pool_recycle=-1 if limits.lifetime_seconds is None else limits.lifetime_seconds,
        connect_args={name: value for name, value in _CONNECT_ARGS.items() if name not in url.query} | _FIXED_ARGS,
        execution_options={_SCHEMAS: {None: schema}} if schema else {},
    )
    event.listen(engine, "connect", _set_up_postgres)
    return engine


def _name_authorities(url: URL) -> URL:
    """Replace `sslrootcert=system` by a file: psycopg's libpq has an OpenSSL of its own, which looks elsewhere.

    `sslmode=verify-full` means the same unless there is a file where libpq looks for one.
    """
    named = url.query.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    if named is None and url.query.get("sslmode") == "verify-full" and not Path(_ROOT_FILE).expanduser().exists():
        named = "system"
    if named != "system":
        return url
    candidates = (ssl.get_default_verify_paths().cafile, *_AUTHORITIES)  # the first is SSL_CERT_FILE if it is set
    found = next((path for path in candidates if path and Path(path).is_file()), "system")
    return url.update_query_dict({"sslrootcert": found})


def schema_of(database: Engine | Connection) -> str | None:
    """Return the schema that statements name the tables with, or None if they name none."""
    schemas: dict[None, str] = database.get_execution_options().get(_SCHEMAS, {})
    return schemas.get(None)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that may write and is committed at the end of the block.

    On SQLite only one such transaction is open at a time. A lock that another transaction holds is waited for up to
    10 s. Postgres ends the transaction after it has been idle for 10 s, so that a stopped process keeps no locks.
    Raises Unavailable when the database fails; then nothing was written, unless the connection broke in the commit.
    """
    with translated_faults(), engine.execution_options(**{_WRITES: True}).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(_WRITING)
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Give a connection that only reads and blocks no writer; on Postgres each statement is its own transaction.

    Raises Unavailable when the database fails.
    """
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")  # saves the round trips of BEGIN and ROLLBACK
    with translated_faults(), engine.connect() as connection:
        yield connection


@contextmanager
def reading_serially(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that reads without parallel workers, whose start takes longer than a sort.

    Raises Unavailable when the database fails.
    """
    with translated_faults(), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL max_parallel_workers_per_gather = 0")
        yield connection


@contextmanager
def reading_briefly(engine: Engine, seconds: float) -> Iterator[Connection]:
    """Give a connection as `reading_serially` does; on Postgres a statement that takes longer than this is cancelled.

    Raises Unavailable when the database fails or is too slow.
    """
    with reading_serially(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
        yield connection


@contextmanager
def translated_faults() -> Iterator[None]:
    """Raise Unavailable when the database fails in the block; an error in our own statement is not translated.

    `reading` and `writing` do this themselves. It is for callers that open a connection in another way.
    """
    try:
        yield
    except DBAPIError as error:
        if _is_transient(error):
            raise Unavailable(f"the database failed: {_summarize(error)}") from error
        raise
    except PoolExhausted as error:
        raise Unavailable("the database failed: all connections of this process are in use") from error


def _is_transient(error: DBAPIError) -> bool:
    """Return whether the same statement may succeed later, because the database failed and not the statement."""
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return bool(state.startswith(_TRANSIENT))
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return not name.startswith(_SQLITE_PERMANENT)
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)


def _summarize(error: DBAPIError) -> str:
    """Return cause and remedy if they are known, else the first line of the database's message, and its SQLSTATE."""
    message = str(error.orig).strip()
    state = getattr(error.orig, "sqlstate", None)
    if state is None or state.startswith(_CONNECTION_STATES):
        for pattern, reason in _CONNECTION_FAULTS.items():
            if re.search(pattern, message):
                return reason
    lines = message.splitlines() or [type(error.orig).__name__]
    return f"{lines[0]} ({state})" if state else lines[0]


def _clamp_times(name: str) -> type[Loader]:
    """Return a loader for this type that reads what Python can't hold as the first or the last datetime."""
    fastest = psycopg.adapters.get_loader(psycopg.adapters.types[name].oid, Format.TEXT)
    zone = UTC if name == "timestamptz" else None

    class Clamped(Loader):
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._load = fastest(oid, context).load  # type: ignore[misc] # psycopg has a loader for every built-in type

        def load(self, data: Buffer) -> datetime:
            try:
                found: datetime = self._load(data)
            except psycopg.DataError:
                text = bytes(data)
                early = text.startswith(b"-") or text.endswith(b"BC")
                return datetime.min.replace(tzinfo=zone) if early else datetime.max.replace(tzinfo=zone)
            return found

    return Clamped


_CLAMPED = {name: _clamp_times(name) for name in ("timestamp", "timestamptz")}


def _set_up_postgres(connection: Any, _: object) -> None:
    for name, loader in _CLAMPED.items():
        connection.adapters.register_loader(name, loader)


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions late, and only for some statements
    connection.text_factory = lambda stored: stored.decode(errors="replace")
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later can't wait for SQLite's lock, so it takes the lock when it begins.
    immediate = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
