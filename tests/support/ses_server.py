"""Amazon SES as moto fakes it, behind a proxy whose answers a test can change."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_string, policy
from email.message import EmailMessage
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.ses.models import ses_backends
from werkzeug.serving import make_server

from tests.support.http_proxy import HttpProxy, Response, http_proxy

REGION = "eu-central-1"
_ACCOUNT = "123456789012"
SEND = "/v2/email/outbound-emails"
ACCOUNT = "/v2/email/account"
IDENTITIES = "/v2/email/identities/"


@dataclass(frozen=True)
class SesServer:
    """A running server: the settings that point Waybill there, and what was sent."""

    proxy: HttpProxy

    def environment(self) -> dict[str, str]:
        """The settings and AWS's variables for this server."""
        return {
            "SMTP_CONNECTION_URL": f"ses://{REGION}",
            "AWS_ENDPOINT_URL_SESV2": self.proxy.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def verify(self, identity: str) -> None:
        """Verify an address or a domain."""
        _backend().verify_email_identity(identity)

    def sent(self) -> list[tuple[str, list[str], EmailMessage]]:
        """The sender, the recipients and the message of each email that was accepted."""
        parse = message_from_string
        return [
            (each.source, each.destinations[:1], parse(each.raw_data, policy=policy.default))
            for each in _backend().sent_messages
        ]

    def answer(self, path: str, status: int, code: str, message: str = "", *, times: int = 1_000_000) -> None:
        """Answer the next requests for a path with an error."""
        body = json.dumps({"message": message}).encode()
        headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
        self.proxy.add(
            lambda request: request.path.startswith(path),
            lambda _: Response(status, headers, iter([body])),
            times=times,
        )

    def describe(self, path: str, **content: Any) -> None:
        """Answer requests for a path with this content from now on."""
        body = json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        self.proxy.add(lambda request: request.path.startswith(path), lambda _: Response(200, headers, iter([body])))


def _backend() -> Any:
    return ses_backends[_ACCOUNT][REGION]


@contextlib.contextmanager
def ses_server() -> Iterator[SesServer]:
    """Run a server without identities and emails on a free port while the block runs."""
    _backend().reset()
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        with http_proxy(f"127.0.0.1:{server.server_port}") as proxy:
            yield SesServer(proxy)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
