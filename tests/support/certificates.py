"""A private certificate authority, and a server certificate for 127.0.0.1 that it signs."""

import ssl
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")  # RSA keys take thirty times longer
_NEW = ("openssl", "req", "-x509", *_KEY, "-days", "2")


@dataclass(frozen=True)
class Authority:
    """The certificate of the authority, and what a server needs: `key` and `certificate`, PEM files."""

    file: Path
    key: Path
    certificate: Path

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS context of a server on 127.0.0.1."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_authority(folder: Path, name: str = "Waybill tests") -> Authority:
    """Create an authority with a name, and a certificate, in a folder, which may be new."""
    folder.mkdir(exist_ok=True)
    own = Authority(folder / "ca.pem", folder / "server.key", folder / "server.pem")
    signing = folder / "ca.key"
    _run(*_NEW, "-subj", f"/CN={name}", "-keyout", signing, "-out", own.file)
    _run(
        *(*_NEW, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        *("-addext", "basicConstraints=critical,CA:FALSE", "-CA", own.file, "-CAkey", signing),
        *("-keyout", own.key, "-out", own.certificate),
    )
    return own


def sign_server(authority: Authority, address: str, days: int) -> Authority:
    """Give the server another certificate: for an address such as `DNS:localhost`, and for some days; -1 is past."""
    request, certificate = authority.file.with_name("server.csr"), authority.file.with_name("other.pem")
    key = authority.file.with_name("other.key")
    _run(
        *("openssl", "req", "-new", *_KEY, "-subj", "/CN=server", "-addext"),
        *(f"subjectAltName={address}", "-keyout", key, "-out", request),
    )
    _run(
        *("openssl", "x509", "-req", "-days", str(days), "-copy_extensions", "copy", "-in", request),
        *("-CA", authority.file, "-CAkey", authority.file.with_name("ca.key"), "-out", certificate),
    )
    return replace(authority, key=key, certificate=certificate)


def sign_client(authority: Authority, name: str) -> tuple[Path, Path]:
    """Create a certificate for a client with a name, and its key, beside those of the authority."""
    certificate, key = authority.file.with_name(f"{name}.pem"), authority.file.with_name(f"{name}.key")
    _run(
        *(*_NEW, "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:FALSE", "-CA", authority.file),
        *("-CAkey", authority.file.with_name("ca.key"), "-keyout", key, "-out", certificate),
    )
    return certificate, key


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
