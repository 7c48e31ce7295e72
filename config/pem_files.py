"""Checks the certificate files that settings name, so that a wrong path is reported at startup, with its variable."""

import ssl
from typing import Annotated

from pydantic import AfterValidator

REMEDY = "name a PEM file with CA certificates"


def check_authorities(value: str) -> str:
    """Return the path of a PEM file with certificates that TLS clients can load; raises ValueError for any other.

    Clients would notice it only when they connect, and each in its own way: some ignore a missing file.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=value)
    except ssl.SSLError:
        raise ValueError(f"the file {value} has no certificate that can be read: {REMEDY}") from None
    except OSError as error:
        reason = (error.strerror or "it can't be opened").lower()
        raise ValueError(f"the file {value} can't be read ({reason}): {REMEDY}") from None
    if not context.cert_store_stats()["x509"]:
        raise ValueError(f"the file {value} has no certificate: {REMEDY}")
    return value


AuthoritiesFile = Annotated[str, AfterValidator(check_authorities)]
