"""An OAuth 2 token endpoint with the keys of its tokens, whose answers a test can change."""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

KEY_ID = "test"
CLIENT, SECRET = "waybill-client", "s3cret/with+signs&%"
REFRESH = "refresh-1"

Answer = tuple[int, bytes]


@dataclass(frozen=True)
class TokenRequest:
    """A request for a token: its form, and the login that it gave in the header, if any."""

    form: Mapping[str, str]
    login: tuple[str, str] | None


@dataclass
class TokenIssuer:
    """Issues JWTs that live for `lifetime` seconds to the client of this module.

    `answer` replaces the answer of the endpoint. `requests` has every request so far.
    """

    url: str = ""
    lifetime: float = 300
    scope: str = "kafka"
    audience: str = "kafka"
    in_body: bool = False
    answer: Callable[[TokenRequest], Answer] | None = None
    requests: list[TokenRequest] = field(default_factory=list)
    key: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )

    @property
    def token_url(self) -> str:
        return f"{self.url}/token/"

    @property
    def keys_url(self) -> str:
        return f"{self.url}/keys"

    def respond(self, request: TokenRequest) -> Answer:
        """Answer as RFC 6749 says; the client's login is taken from the header, or from the body if `in_body`."""
        form = request.form
        login = (form.get("client_id", ""), form.get("client_secret", "")) if self.in_body else request.login
        if login != (CLIENT, SECRET):
            return refusal(401, "invalid_client")
        if form.get("grant_type") == "refresh_token" and form.get("refresh_token") != REFRESH:
            return refusal(400, "invalid_grant")
        if form.get("scope", self.scope) != self.scope:
            return refusal(400, "invalid_scope")
        content = {"access_token": self.issue(), "token_type": "Bearer", "expires_in": self.lifetime}
        return 200, json.dumps(content).encode()

    def issue(self) -> str:
        """Sign a token."""
        now = time.time()
        claims = {
            "iss": self.url,
            "aud": self.audience,
            "sub": CLIENT,
            "scope": self.scope,
            "iat": int(now),
            "exp": now + self.lifetime,
        }
        signed = f"{_encode({'alg': 'RS256', 'typ': 'JWT', 'kid': KEY_ID})}.{_encode(claims)}"
        return f"{signed}.{_base64(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def keys(self) -> bytes:
        """The public key as a JWK set."""
        numbers = self.key.public_key().public_numbers()
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": KEY_ID}
        return json.dumps({"keys": [key | {"n": _number(numbers.n), "e": _number(numbers.e)}]}).encode()


def refusal(status: int, code: str) -> Answer:
    """The answer of an endpoint that gives no token, with a text that no message may repeat."""
    return status, json.dumps({"error": code, "error_description": f"not for {SECRET}"}).encode()


@contextlib.contextmanager
def token_issuer() -> Iterator[TokenIssuer]:
    """Run an issuer on a free port while the block runs."""
    issuer = TokenIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, issuer.keys())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            form = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
            request = TokenRequest(form, _login(self.headers.get("Authorization")))
            issuer.requests.append(request)
            found = self.path == "/token/"
            status, content = (issuer.answer or issuer.respond)(request) if found else (404, b"not found")
            with contextlib.suppress(OSError):  # the client may have given up
                self._send(status, content)

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", content.decode())
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _login(header: str | None) -> tuple[str, str] | None:
    if header is None or not header.startswith("Basic "):
        return None
    user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
    return unquote(user), unquote(password)


def _encode(content: Mapping[str, Any]) -> str:
    return _base64(json.dumps(content).encode())


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
