"""An SMTP server: Exim on a free port, delivering into a maildir in a temporary folder."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tests.services import installed
from tests.services.installed import Availability
from tests.services.mail import Mailbox
from tests.services.process import Program, accepts, free_port, give, serving
from tests.support.certificates import Authority

_ACCOUNT = "Debian-exim"
_USER = "waybill"
_PASSWORD = "mail-pässwort"
_ASCII_PASSWORD = "mail-password"

# Exim changes its account, upon which the kernel forgets that it is to end with its parent: this shell does not.
_KEEPER = ["sh", "-c", "trap 'kill $!' TERM; \"$@\" & wait", "keeper"]

# Addresses whose local part is `refused` or `later` are answered with a permanent or a temporary failure:
# what a sender does with those is part of its contract.
_CONFIG = """\
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path =
primary_hostname = mail.test
keep_environment =
smtp_banner = mail.test ESMTP
message_size_limit = 50M
queue_run_max = 1
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = check_recipient
acl_smtp_data = accept
{tls}

begin acl
check_recipient:
  deny local_parts = refused
       message = no such mailbox
  defer local_parts = later
        message = try again later
  accept

begin routers
everyone:
  driver = accept
  transport = maildir

begin transports
maildir:
  driver = appendfile
  directory = {folder}/maildir
  maildir_format
  create_directory
  user = {account}
  envelope_to_add
  return_path_add
  delivery_date_add

begin retry
* * F,1h,1m

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and {{{{eq{{$auth2}}{{{user}}}}}{{inlist{{$auth3}}{{{passwords}}}}}}}}}
  server_set_id = $auth2
  server_advertise_condition = yes
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and {{{{eq{{$auth1}}{{{user}}}}}{{inlist{{$auth2}}{{{passwords}}}}}}}}}
  server_set_id = $auth1
  server_advertise_condition = yes
"""


_WITHOUT_TLS = "tls_advertise_hosts ="
_TLS = """\
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
tls_on_connect_ports = {port}"""


@dataclass(frozen=True)
class Smtp:
    """A running server; `tls_port` is for connections with TLS from the first byte."""

    port: int
    mailbox: Mailbox
    pid: int
    tls_port: int | None = None

    def environment(self) -> dict[str, str]:
        """The settings that point Waybill here."""
        return {
            "SMTP_CONNECTION_URL": f"smtp://{_USER}:{quote(_PASSWORD)}@127.0.0.1:{self.port}",
            "EMAIL_FROM_ADDRESS": "exports@waybill.test",
        }

    def ascii_url(self, port: int) -> str:
        """Its URL at another port, with a login that older versions of Waybill know how to send."""
        return f"smtp://{_USER}:{_ASCII_PASSWORD}@127.0.0.1:{port}"


def available() -> Availability:
    """Whether the server can be started here."""
    exim = installed.program("exim4")
    if exim is None:
        return Availability("smtp", why_not="no exim4")
    if os.geteuid() != 0:
        return Availability("smtp", why_not="Exim delivers only when it is started by root")
    return Availability("smtp", version=installed.first_line(exim, "-bV").partition(" #")[0])


@contextlib.contextmanager
def start(folder: Path, port: int | None = None, authority: Authority | None = None) -> Iterator[Smtp]:
    """Run a server on mails in `folder`; the same folder and port again is the same server, restarted.

    With an authority, it offers STARTTLS, and has a port with TLS.
    Restarted, it delivers what it had taken and not delivered yet: that is what its queue is run for.
    """
    exim = installed.program("exim4")
    if exim is None:
        raise RuntimeError("no exim4 on this machine")
    port = port or free_port()
    for path in (folder, folder / "log", folder / "spool", folder / "maildir"):
        path.mkdir(exist_ok=True)
        give(path, _ACCOUNT)
    config = folder / "exim.conf"
    tls_port = free_port() if authority is not None else None
    tls = _WITHOUT_TLS if authority is None else _configure_tls(folder, authority, tls_port)
    passwords = f"{_PASSWORD}:{_ASCII_PASSWORD}"
    config.write_text(_CONFIG.format(folder=folder, account=_ACCOUNT, user=_USER, passwords=passwords, tls=tls))
    config.chmod(0o644)
    ports = " : ".join(str(each) for each in (port, tls_port) if each is not None)
    command: list[str | Path] = [*_KEEPER, exim, "-C", config, "-bdf", "-q2s", "-oX", ports, "-oP", "/dev/null"]
    with serving(Program("exim", command, folder / "exim.log"), lambda: accepts(port)) as process:
        yield Smtp(port, Mailbox(folder / "maildir", "new/*", "Envelope-to"), process.pid, tls_port)


def _configure_tls(folder: Path, authority: Authority, port: int | None) -> str:
    """Copy key and certificate to where the server can read them, and return its configuration for them."""
    files = {"certificate": authority.certificate, "key": authority.key}
    copies = {name: folder / path.name for name, path in files.items()}
    for name, path in files.items():
        copies[name].write_bytes(path.read_bytes())
        give(copies[name], _ACCOUNT)
    return _TLS.format(**copies, port=port)
