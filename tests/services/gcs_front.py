"""What the emulator of Google Cloud Storage lacks: tokens, signatures of links, and the state of unfinished uploads."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from tests.support.http_proxy import Forward, HttpProxy, Request, Responder, Response

RESUME, CLIENT_CLOSED = 308, 499
TOKEN = "the-token-of-the-test"
OPEN_UPLOADS = "/open-uploads/"
"""The path under which the front lists the uploads of a bucket that were neither completed nor cancelled."""


@dataclass
class Session:
    """An upload in chunks: how much of it is stored, and the response that completed it."""

    bucket: str
    name: str
    stored: int = 0
    completed: tuple[int, dict[str, str], bytes] | None = None


@dataclass
class GcsFront(HttpProxy):
    """Answers like Google where the emulator at `upstream` does not, for the service account with this key.

    The emulator checks neither tokens nor signatures, knows conditions of writes only, and takes the question what is
    stored of an upload for its end.
    """

    upstream: str = ""
    key: RSAPublicKey | None = None
    sessions: dict[str, Session] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: Request) -> Responder | None:
        """Answer each request by its path."""
        place = urlsplit(request.path)
        query = dict(parse_qsl(place.query, keep_blank_values=True))
        if place.path == "/token":
            return lambda _: self._give_token(request)
        if place.path.startswith(OPEN_UPLOADS):
            return lambda _: self._list_open(place.path.removeprefix(OPEN_UPLOADS))
        if place.path.startswith(("/storage/", "/upload/")):
            return self._take_call(request, query)
        return lambda forward: forward() if (refusal := self._check_link(request)) is None else refusal

    def _take_call(self, request: Request, query: Mapping[str, str]) -> Responder | None:
        if "upload_id" in query:
            return lambda forward: self._continue(request, query["upload_id"], forward)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return lambda _: _refuse(401, "Invalid Credentials")
        if request.method == "DELETE" and "ifGenerationMatch" in query:
            return lambda forward: self._remove(request, query["ifGenerationMatch"], forward)
        if query.get("uploadType") == "resumable":
            return lambda forward: self._begin(request, query["name"], forward)
        return None

    def _give_token(self, request: Request) -> Response:
        assertion = dict(parse_qsl(request.body.decode()))["assertion"]
        signed, _, signature = assertion.rpartition(".")
        if not self._is_signed(signed.encode(), base64.urlsafe_b64decode(signature + "==")):
            return _reply(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
        return _reply(200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})

    def _list_open(self, bucket: str) -> Response:
        with self.lock:
            found = [each.name for each in self.sessions.values() if each.bucket == bucket and each.completed is None]
        return _reply(200, sorted(found))

    def _begin(self, request: Request, name: str, forward: Forward) -> Response:
        response = _read(forward())
        if response.status == 200:
            upload = dict(parse_qsl(urlsplit(response.headers["Location"]).query))["upload_id"]
            with self.lock:
                self.sessions[upload] = Session(urlsplit(request.path).path.split("/")[5], name)
        return response

    def _continue(self, request: Request, upload: str, forward: Forward) -> Response:
        session = self.sessions.get(upload)
        if session is None:
            return _refuse(404, "Not Found")
        if session.completed is not None:
            status, headers, body = session.completed
            return Response(status, headers, iter([body]))
        if request.method == "DELETE":
            _read(forward())
            with self.lock:
                del self.sessions[upload]
            return Response(CLIENT_CLOSED, {"Content-Length": "0"}, iter(()))
        return self._store(request, upload, session, forward)

    def _store(self, request: Request, upload: str, session: Session, forward: Forward) -> Response:
        span, _, total = request.headers["Content-Range"].removeprefix("bytes ").partition("/")
        if (span == "*" and total != str(session.stored)) or (
            span != "*" and int(span.split("-")[0]) != session.stored
        ):
            return _resume(session)
        response = _read(forward())
        with self.lock:
            if response.status == RESUME:
                session.stored = int(span.split("-")[1]) + 1
                return _resume(session)
            if response.status == 200:
                body = b"".join(response.body)
                session.completed = response.status, response.headers, body
                return replace(response, body=iter([body]))
            self.sessions.pop(upload)
        return response

    def _remove(self, request: Request, generation: str, forward: Forward) -> Response:
        connection = HTTPConnection(self.upstream, timeout=30)
        try:
            connection.request("GET", urlsplit(request.path).path)
            found = connection.getresponse()
            body = found.read()
        finally:
            connection.close()
        if found.status == 200 and json.loads(body)["generation"] != generation:
            return _refuse(412, "At least one of the pre-conditions you specified did not hold.")
        return forward()

    def _check_link(self, request: Request) -> Response | None:
        place = urlsplit(request.path)
        query = dict(parse_qsl(place.query, keep_blank_values=True))
        if "X-Goog-Signature" not in query:
            return _refuse_link(403, "AccessDenied")
        given = bytes.fromhex(query.pop("X-Goog-Signature"))
        scope = query["X-Goog-Credential"].partition("/")[2]
        host = request.headers["Host"]
        sent = "&".join(sorted(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items()))
        path = quote(unquote(place.path), safe="/~")
        canonical = f"GET\n{path}\n{sent}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        message = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{digest}"
        if not self._is_signed(message.encode(), given):
            return _refuse_link(403, "SignatureDoesNotMatch")
        begun = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%S%z")
        if datetime.fromtimestamp(time.time(), UTC) >= begun + timedelta(seconds=int(query["X-Goog-Expires"])):
            return _refuse_link(400, "ExpiredToken")
        return None

    def _is_signed(self, message: bytes, signature: bytes) -> bool:
        assert self.key is not None
        try:
            self.key.verify(signature, message, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


def _read(response: Response) -> Response:
    """Return a response whose body has been read, so that the emulator is done with the request."""
    return replace(response, body=iter([b"".join(response.body)]))


def _resume(session: Session) -> Response:
    stored = {"Range": f"bytes=0-{session.stored - 1}"} if session.stored else {}
    return Response(RESUME, {"Content-Length": "0", **stored}, iter(()))


def _reply(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(content).encode()
    found = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    return Response(status, found, iter([body]))


def _refuse(status: int, message: str) -> Response:
    return _reply(status, {"error": {"code": status, "message": message}})


def _refuse_link(status: int, code: str) -> Response:
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>".encode()
    return Response(status, {"Content-Type": "application/xml", "Content-Length": str(len(body))}, iter([body]))
