"""Loads credentials of Google, renews their tokens, and signs links with them."""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import google.auth
import google.auth.credentials
import google.auth.exceptions
import google.auth.iam
import urllib3
from google.auth.transport.urllib3 import Request
from google.oauth2.service_account import Credentials

from config.errors import Unavailable

CREDENTIALS = "LANGFUSE_GOOGLE_CLOUD_STORAGE_CREDENTIALS"
LONGEST_OF_GOOGLE = timedelta(hours=12)
"""How long a signature that Google makes can be relied on: Google replaces the keys of service accounts that it has."""

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_ALGORITHM = "GOOG4-RSA-SHA256"
_TOKEN = re.compile(r"[\x21-\x7e]+")
"""A token is a part of a header: an HTTP client would repeat any other one in its error."""


class Identity:
    """The credentials of the process; used from several threads.

    `given` is the JSON of a key, or the path of a file with it; None means the default credentials of the environment,
    which are looked for when they are first needed. Raises ValueError if `given` is neither.
    """

    def __init__(self, given: str | None, pool: urllib3.PoolManager) -> None:
        self._request = Request(pool)
        self._info = None if given is None else read_credentials(given)
        self._lock = threading.Lock()
        self._loaded: Any = None

    def load_token(self) -> str:
        """Return a token for requests; raises the exceptions of google-auth, and Unavailable for a strange answer."""
        with self._lock:
            credentials = self._load()
            if not credentials.valid:
                _refresh(credentials, self._request)
            return str(credentials.token)

    @property
    def has_key(self) -> bool:
        """Whether the credentials have a private key of their own."""
        return isinstance(self._load_signing(), Credentials)

    def sign(self, message: bytes) -> bytes:
        """Sign with the private key; without one, Google signs, if the service account may do this for itself."""
        credentials = self._load_signing()
        if isinstance(credentials, google.auth.credentials.Signing):
            return bytes(credentials.sign_bytes(message))
        signer = google.auth.iam.Signer(self._request, credentials, self.email)
        try:
            return bytes(signer.sign(message))
        except google.auth.exceptions.TransportError as error:
            raise Unavailable(
                "Google refused to sign a link: the service account needs the role Service Account Token Creator on "
                f"itself ({self.email}), or set {CREDENTIALS} to a key"
            ) from error

    @property
    def email(self) -> str:
        """The email address of the service account that signs; raises Unavailable if there is none."""
        if not self.has_key:
            self.load_token()  # the address is loaded with it
        credentials = self._load_signing()
        found = getattr(credentials, "signer_email", None) or getattr(credentials, "service_account_email", None)
        if not found or "@" not in str(found):
            raise Unavailable(
                "links can't be signed: the credentials do not belong to a service account: "
                f"set {CREDENTIALS} to the key of one, or let the identity of the process impersonate one"
            )
        return str(found)

    def _load_signing(self) -> Any:
        with self._lock:
            return self._load()

    def _load(self) -> Any:
        if self._loaded is None:
            scopes = [_SCOPE]
            if self._info is None:
                self._loaded, _ = google.auth.default(scopes=scopes, request=self._request)
            else:
                self._loaded = Credentials.from_service_account_info(self._info, scopes=scopes)
        return self._loaded


def _refresh(credentials: Any, request: Request) -> None:
    strange = f"the token endpoint of Google answered without a token: is the token_uri of {CREDENTIALS} right?"
    try:
        credentials.refresh(request)
    except google.auth.exceptions.GoogleAuthError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # google-auth does not check what it reads.
        raise Unavailable(strange) from error
    if not isinstance(credentials.token, str) or not _TOKEN.fullmatch(credentials.token):
        credentials.token = None
        raise Unavailable(strange)


def read_credentials(given: str) -> Mapping[str, Any]:
    """Return a service account's key from JSON or a file; raises ValueError, without a part of it, if it is neither."""
    text = given
    if not given.lstrip().startswith("{"):
        try:
            text = Path(given).read_text()
        except OSError as error:
            raise ValueError(
                f"{CREDENTIALS}: is neither JSON nor a file that can be read ({error.strerror or 'invalid path'})"
            ) from None
        except ValueError:
            raise ValueError(f"{CREDENTIALS}: is neither JSON nor the path of a file") from None
    try:
        found = json.loads(text)
        kind = found.get("type")
        if kind == "service_account":
            urlsplit(found["token_uri"].strip())
            Credentials.from_service_account_info(found).sign_bytes(b"")  # a key that is not RSA can't sign
    except (
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        RecursionError,
        google.auth.exceptions.GoogleAuthError,
    ):
        raise ValueError(f"{CREDENTIALS}: is not the JSON of a service account's key") from None
    if kind != "service_account":
        raise ValueError(
            f"{CREDENTIALS}: is not the key of a service account; for other credentials, remove it and set "
            "GOOGLE_APPLICATION_CREDENTIALS to their file"
        )
    return dict(found)


def sign_url(url: str, identity: Identity, lifetime: timedelta, now: datetime, parameters: Mapping[str, str]) -> str:
    """Return the URL of an object with a signature of version 4 for GET, valid for `lifetime` from `now` (UTC).

    Without a key of its own, an identity signs for LONGEST_OF_GOOGLE at most. `parameters` are part of what is signed.
    """
    lifetime = lifetime if identity.has_key else min(lifetime, LONGEST_OF_GOOGLE)
    time, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
    scope = f"{day}/auto/storage/goog4_request"
    query = {
        **parameters,
        "X-Goog-Algorithm": _ALGORITHM,
        "X-Goog-Credential": f"{identity.email}/{scope}",
        "X-Goog-Date": time,
        "X-Goog-Expires": str(int(lifetime.total_seconds())),
        "X-Goog-SignedHeaders": "host",
    }
    place, sent = urlsplit(url), urlencode(sorted(query.items()), quote_via=quote, safe="")
    request = "\n".join(("GET", place.path, sent, f"host:{place.netloc}", "", "host", "UNSIGNED-PAYLOAD"))
    message = "\n".join((_ALGORITHM, time, scope, hashlib.sha256(request.encode()).hexdigest()))
    return f"{url}?{sent}&X-Goog-Signature={identity.sign(message.encode()).hex()}"
