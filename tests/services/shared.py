"""Services that run once for all workers of a test run; each starts when a test first needs it."""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

from tests.services import azure, gcs, kafka, postgres, s3

# Tests that use these take their own topics, databases or bucket, so workers do not disturb each other.
_STARTERS: dict[str, Callable[[Path], AbstractContextManager[Any]]] = {
    "kafka": kafka.start,
    "postgres": postgres.start,
    "s3": s3.start,
    "azure": azure.start,
    "gcs": gcs.start,
}


class SharedServices:
    """The services of one run. Its threads live until `close`, because the kernel ends a server with its thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(len(_STARTERS))
        self._running = ExitStack()
        self._started: dict[str, Future[Any]] = {}
        self._lock = threading.Lock()

    def start(self, name: str) -> Any:
        """Return a running service by name; start it if it does not run. Raises RuntimeError if it can't start."""
        with self._lock:
            if name not in self._started:
                service = _STARTERS[name](self._folder / name)
                self._started[name] = self._threads.submit(self._running.enter_context, service)
        return self._started[name].result()

    def close(self) -> None:
        """Stop all services."""
        self._running.close()
        self._threads.shutdown()


class _Manager(BaseManager):
    """Gives the workers of a run access to the services of its controller."""


def serve(services: SharedServices) -> dict[str, Any]:
    """Serve the services to other processes until this one ends; give what `connect` needs."""
    _Manager.register("services", callable=lambda: services)
    key = secrets.token_bytes(16)
    server = _Manager(("127.0.0.1", 0), key).get_server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return {"address": server.address, "key": key}


def connect(address: tuple[str, int], key: bytes) -> Any:
    """Connect to the services of another process, which have the methods of SharedServices."""
    _Manager.register("services")
    manager = _Manager(address, key)
    manager.connect()
    return manager.services()  # type: ignore[attr-defined]  # it is registered above
