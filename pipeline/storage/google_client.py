"""Sends requests to the JSON interface of Google Cloud Storage, and translates its errors."""

# Written by hand on google-auth: gcsfs and Google's own client also send a file in one thread, but need ten times the
# packages, and gcsfs takes no condition but "there is no object".

import io
import json
import re
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import google.auth.exceptions
import urllib3
from urllib3.exceptions import HTTPError

from config.errors import Unavailable
from pipeline.storage.calls import CONNECT_SECONDS, READ_SECONDS, Fault
from pipeline.storage.google_credentials import CREDENTIALS, Identity
from pipeline.storage.options import GoogleOptions
from pipeline.storage.safe_names import ADVICE
from pipeline.storage.types import Refused
from runtime.network import CERTIFICATE_REMEDIES, explain_fault

ENDPOINT = "https://storage.googleapis.com"
RESUME = 308
"""The status of a request that has stored a part of an upload."""

MISSING = {"404"}
"""The codes of responses when there is no object; in a response to an upload it is the bucket that is missing."""

DENIED = {"403"}
OVERTAKEN = {"412"}
"""The codes of responses when another object has replaced the one that the request was made for."""

_ENDED = {"404", "410", "499"}
_TEMPORARY_STATUS = {408, 429}
_PIECE = 256 << 10
_SOME = "name,generation,size,metadata"
_MESSAGE_CHARACTERS = 300
_STORED = re.compile(r"bytes=0-(\d{1,15})")
_ROLE = "the credentials need the role Storage Object User on the bucket"
_REMEDIES = {
    "401": f"is {CREDENTIALS} right?",
    "403": _ROLE,
    "404": "is LANGFUSE_S3_BATCH_EXPORT_BUCKET the name of the bucket?",
}


@dataclass(frozen=True)
class Response:
    """A response that is not an error; `content` is the object of its JSON, empty if it has none."""

    status: int
    headers: Mapping[str, str]
    content: Mapping[str, Any]


class Failed(Exception):
    """A response that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Foreign(Exception):
    """A response that Google's JSON interface does not send: another kind of server answered."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")


@dataclass(frozen=True)
class Description:
    """What is stored with an object: its name, properties and metadata, and the condition of the write.

    `generation` is that of the object to be replaced, 0 if there must be none.
    """

    name: str
    content_type: str
    content_disposition: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0

    def to_json(self) -> bytes:
        """Return the properties as the body of a request."""
        return json.dumps(
            {
                "name": self.name,
                "contentType": self.content_type,
                "contentDisposition": self.content_disposition,
                "metadata": dict(self.metadata),
            }
        ).encode()


class Client:
    """The requests for objects of one bucket; used from several threads. Each method makes one request."""

    def __init__(self, bucket: str, options: GoogleOptions) -> None:
        self.bucket = bucket
        self.endpoint = options.endpoint or ENDPOINT
        # The default context also reads SSL_CERT_FILE.
        self._pool = urllib3.PoolManager(
            maxsize=64,
            blocksize=_PIECE,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            ssl_context=ssl.create_default_context(),
        )
        self.identity = Identity(options.credentials, self._pool)

    def load(self, name: str) -> Mapping[str, Any]:
        """Return the properties of an object; Failed with status 404 if there is none."""
        response = self._ask("GET", self._locate(name, fields=_SOME))
        if not _describes_object(response.content):
            raise Foreign(response.status)
        return response.content

    def remove(self, name: str, generation: int) -> None:
        """Delete an object, if it is still this one."""
        self._ask("DELETE", self._locate(name, ifGenerationMatch=generation))

    def put(self, description: Description, body: bytes) -> Mapping[str, Any]:
        """Store an object in one request; return its properties."""
        mark = secrets.token_hex(16).encode()
        whole = b"".join(
            (
                b"--%b\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n" % mark,
                description.to_json(),
                b"\r\n--%b\r\nContent-Type: %b\r\n\r\n" % (mark, description.content_type.encode()),
                body,
                b"\r\n--%b--\r\n" % mark,
            )
        )
        url = self._locate_upload("multipart", description)
        headers = {"Content-Type": f"multipart/related; boundary={mark.decode()}"}
        return self._ask("POST", url, headers, whole).content

    def begin(self, description: Description) -> str:
        """Begin an upload in chunks; return its address, which needs no credentials."""
        headers = {
            "Content-Type": "application/json; charset=UTF-8",
            "X-Upload-Content-Type": description.content_type,
        }
        url = self._locate_upload("resumable", description)
        response = self._ask("POST", url, headers, description.to_json())
        address = str(response.headers.get("Location", ""))
        if not address.startswith(("https://", "http://")):
            raise Foreign(response.status)
        return address

    def send(self, address: str, content_range: str, body: bytes = b"") -> Response:
        """Send a chunk of an upload, or ask what is stored of it."""
        return self._send("PUT", address, {"Content-Range": content_range}, body)

    def cancel(self, address: str) -> None:
        """Cancel an upload that is not complete; it may have ended already."""
        try:
            self._send("DELETE", address, {}, b"")
        except Failed as failed:
            if str(failed.status) not in _ENDED:
                raise

    def _ask(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Response:
        token = self.identity.load_token()
        return self._send(method, url, {"Authorization": f"Bearer {token}", **(headers or {})}, body)

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        length = {} if method == "GET" else {"Content-Length": str(len(body))}
        # A file is sent in pieces; the timeout would limit how long all bytes of an object take.
        sent = io.BytesIO(body) if body else None
        response = self._pool.request(method, url, body=sent, headers={**headers, **length}, redirect=False)
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise Failed(response.status, _read_message(response.data))
        is_resumed = response.status == RESUME and method == "PUT"
        if not (is_resumed or HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES):
            raise Foreign(response.status)
        has_content = not is_resumed and method != "DELETE"
        content = _read_content(response.status, response.data) if has_content else {}
        return Response(response.status, response.headers, content)

    def _locate(self, name: str, **query: object) -> str:
        return f"{self.endpoint}/storage/v1/b/{quote(self.bucket)}/o/{quote(name, safe='')}?{urlencode(query)}"

    def _locate_upload(self, kind: str, description: Description) -> str:
        query = urlencode(
            {
                "uploadType": kind,
                "name": description.name,
                "ifGenerationMatch": description.generation,
                "fields": _SOME,
            }
        )
        return f"{self.endpoint}/upload/storage/v1/b/{quote(self.bucket)}/o?{query}"


def translate(name: str, error: Exception) -> Fault:
    """Say what an error means for the caller of `name`."""
    if isinstance(error, Failed):
        temporary = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR or error.status in _TEMPORARY_STATUS
        return Fault(_explain_refusal(name, error), temporary)
    if isinstance(error, Foreign):
        text = f"the server that was asked for {name} is not Google Cloud Storage ({error})"
        return Fault(Unavailable(f"{text}: is LANGFUSE_S3_BATCH_EXPORT_ENDPOINT right?"), temporary=False)
    if isinstance(error, google.auth.exceptions.DefaultCredentialsError):
        advice = f"there are no credentials: set {CREDENTIALS}, or give the process a service account"
        return Fault(Unavailable(f"Google Cloud Storage could not be reached: {advice}"), temporary=False)
    if isinstance(error, google.auth.exceptions.RefreshError) and not error.retryable:
        advice = f"the credentials were refused: is {CREDENTIALS} right, or the service account of the process?"
        return Fault(Unavailable(f"Google Cloud Storage could not be reached: {advice}"), temporary=False)
    if isinstance(error, HTTPError | google.auth.exceptions.GoogleAuthError | OSError):
        reason = explain_fault(error)
        remedy = CERTIFICATE_REMEDIES.get(reason, "is LANGFUSE_S3_BATCH_EXPORT_ENDPOINT right?")
        text = f"Google Cloud Storage could not be reached for {name} ({reason}): {remedy}"
        return Fault(Unavailable(text), temporary=True)
    return Fault(error, temporary=False)


def read_stored(response: Response) -> int:
    """Return how many bytes of an upload are stored, from a header such as `Range: bytes=0-99`."""
    if (header := response.headers.get("Range")) is None:
        return 0
    if (stored := _STORED.fullmatch(header)) is None:
        raise Foreign(response.status)
    return int(stored[1]) + 1


def _read_content(status: int, body: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(body) if body else {}
    except (ValueError, RecursionError) as error:
        raise Foreign(status) from error
    if not isinstance(content, dict):
        raise Foreign(status)
    return content


def _describes_object(content: Mapping[str, Any]) -> bool:
    """Return whether properties are those of an object: Google writes its numbers as text."""
    numbers = all(str(content.get(name)).isdecimal() for name in ("generation", "size"))
    metadata = content.get("metadata") or {}
    return numbers and isinstance(metadata, dict) and all(isinstance(each, str) for each in metadata.values())


def _explain_refusal(name: str, error: Failed) -> Refused:
    code = str(error.status)
    remedy = _REMEDIES.get(code)
    advice = ADVICE.format(f"the store refuses them ({code})") if remedy else None
    text = f"Google Cloud Storage refused {name}: {error}" + (f" ({remedy})" if remedy else "")
    return Refused(text, code, advice=advice)


def _read_message(body: bytes) -> str:
    try:
        return " ".join(str(json.loads(body)["error"]["message"]).split())[:_MESSAGE_CHARACTERS]
    except (ValueError, TypeError, LookupError, RecursionError):
        return "no reason is given"
