"""PgBouncer: a pooler in front of a running PostgreSQL, which gives each transaction the next of its connections."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import make_url

from tests.services import installed
from tests.services.installed import Availability
from tests.services.postgres import server_account
from tests.services.process import Program, accepts, free_port, give, serving
from tests.support.certificates import Authority

_CONFIG = """\
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = {mode}
default_pool_size = 20
min_pool_size = 3
server_round_robin = 1
max_client_conn = 200
"""
_TLS = """\
client_tls_sslmode = require
client_tls_key_file = {key}
client_tls_cert_file = {certificate}
"""


@dataclass(frozen=True)
class PgBouncer:
    """A running pooler."""

    port: int

    def url(self, database: str, *parameters: str) -> str:
        """The URL of a database of the server, through the pooler."""
        query = "&".join(parameters)
        return make_url(database).set(port=self.port).render_as_string(hide_password=False) + (
            f"?{query}" if query else ""
        )


def available() -> Availability:
    """Whether the pooler can be started here."""
    program = installed.program("pgbouncer")
    if program is None:
        return Availability("pgbouncer", why_not="no pgbouncer")
    return Availability("pgbouncer", version=installed.first_line(program, "--version"))


@contextlib.contextmanager
def start(
    folder: Path,
    server: int,
    mode: Literal["session", "transaction", "statement"],
    *users: str,
    authority: Authority | None = None,
) -> Iterator[PgBouncer]:
    """Run a pooler in front of the server on a port; the users connect without a password.

    With an authority, they must use TLS, and the authority has signed the pooler's certificate.
    """
    program = installed.program("pgbouncer")
    if program is None:
        raise RuntimeError("no pgbouncer on this machine")
    port = free_port()
    folder.mkdir()
    known = folder / "users.txt"
    known.write_text("".join(f'"{user}" ""\n' for user in users))
    config = folder / "pgbouncer.ini"
    config.write_text(_CONFIG.format(server=server, port=port, users=known, mode=mode))
    files = [folder, known, config]
    if authority is not None:
        key, certificate = (folder / each.name for each in (authority.key, authority.certificate))
        key.write_bytes(authority.key.read_bytes())
        certificate.write_bytes(authority.certificate.read_bytes())
        config.write_text(config.read_text() + _TLS.format(key=key, certificate=certificate))
        files += [key, certificate]
    for path in files:
        give(path, server_account())
    with serving(
        Program("pgbouncer", [program, config], folder / "pgbouncer.log", server_account()), lambda: accepts(port)
    ):
        yield PgBouncer(port)
