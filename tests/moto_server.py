"""An S3 server inside the test process, whose answers can be made to fail."""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.services.s3 import Bucket

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
_ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>made up by the test</Message></Error>"


@dataclass
class Fault:
    """What to answer, `times` in a row, to requests of a method whose query has `marker`.

    `after` lets the request through first, so that the deed is done and only its answer is lost.
    """

    method: str
    marker: str
    status: str = "503 Slow Down"
    code: bytes = b"SlowDown"
    times: int = 1
    skip: int = 0
    after: bool = False
    body: bytes = b""


@dataclass
class Faulty:
    """The server's door: answers by itself where a fault says so, else lets the request in."""

    app: Callable[[Environ, StartResponse], Iterable[bytes]]
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        fault = self._due(environ["REQUEST_METHOD"], environ["QUERY_STRING"])
        if fault is None:
            return self.app(environ, start_response)
        if fault.after:
            list(self.app(environ, lambda *_args: None))
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = fault.body or _ERROR % fault.code
        start_response(fault.status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def _due(self, method: str, query: str) -> Fault | None:
        with self.lock:
            self.seen.append((method, query))
            for fault in self.faults:
                if fault.method != method or fault.marker not in query:
                    continue
                if fault.skip:
                    fault.skip -= 1
                elif fault.times:
                    fault.times -= 1
                    return fault
        return None


@dataclass(frozen=True)
class Moto:
    """A running server and a bucket in it."""

    door: Faulty
    bucket: Bucket


@contextlib.contextmanager
def running() -> Iterator[Moto]:
    """Run a server on a free port for the block, with one new bucket."""
    door = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, door, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        bucket = Bucket(f"http://127.0.0.1:{server.server_port}", f"test-{uuid.uuid4().hex[:12]}")
        bucket.client.create_bucket(Bucket=bucket.name)
        door.seen.clear()
        yield Moto(door, bucket)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
