"""Says in a few words why a connection failed, whichever client library wraps the reason."""

import socket
import ssl
from collections.abc import Iterator

UNTRUSTED = "the certificate is not trusted"
EXPIRED = "the certificate has expired or is not valid yet"
OTHER_HOST = "the certificate is for another host name"
CERTIFICATE_REMEDIES = {
    UNTRUSTED: "is its certificate authority in the file that SSL_CERT_FILE names?",
    EXPIRED: "renew it, or correct this machine's clock",
    OTHER_HOST: "is the host name in the settings one of those in the certificate?",
}
"""What to look at when a certificate is the reason why a connection failed."""

# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID, _CERT_HAS_EXPIRED, _HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH.
_CERTIFICATE_REASONS = {9: EXPIRED, 10: EXPIRED, 62: OTHER_HOST, 64: OTHER_HOST}
_REASONS: dict[type[BaseException], str] = {
    ssl.SSLError: "TLS failed",
    socket.gaierror: "the host name can't be resolved",
    TimeoutError: "timeout",
    ConnectionRefusedError: "connection refused",
    ConnectionError: "the connection was closed",
}
"""Reasons by class, subclasses first."""


def explain_fault(error: BaseException) -> str:
    """Return the reason in a chain of exceptions, such as `connection refused`; never the text of a library."""
    causes = list(_unwrap(error))
    for cause in reversed(causes):
        if (reason := _explain(cause)) is not None:
            return reason
    return "the connection failed"


def _explain(error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATE_REASONS.get(error.verify_code, UNTRUSTED)
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error.strerror.lower()
    return _explain_by_name(type(error))


def _explain_by_name(kind: type[BaseException]) -> str | None:
    """Explain the errors of HTTP clients that do not keep their cause."""
    names = {each.__name__ for each in kind.__mro__}
    if "NameResolutionError" in names or "ClientConnectorDNSError" in names:
        return "the host name can't be resolved"
    if any("Timeout" in name for name in names):
        return "timeout"
    if names & {
        "ProtocolError",
        "RemoteDisconnected",
        "IncompleteRead",
        "ServerDisconnectedError",
        "ConnectionClosedError",
    }:
        return "the connection was closed"
    return None


def _unwrap(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from or for, outermost first."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        kept = (getattr(each, name, None) for name in ("reason", "os_error"))
        waiting += [each.__cause__ or each.__context__, *(one for one in kept if isinstance(one, BaseException))]
