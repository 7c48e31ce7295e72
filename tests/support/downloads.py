"""Serves download links of an export and its file, with a client that follows no redirects."""

import asyncio
import contextlib
import hashlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from config.links import Links
from config.metrics import Metrics
from consumer.downloads.app import DownloadOptions, Downloads
from consumer.job_store import Jobs
from pipeline.storage import Storage
from runtime.connections import Limits
from runtime.http import serve
from tests.support.exports import CLAIM_POLICY, NOW, after, claimed, queue, result_of

KEY = "exports/1763726400000-export-1-lf-traces-export-project-1.csv"
FORMER_KEY = "exports/1763726400000-lf-traces-export-project-1-export-1.csv"
DATA = bytes(range(256)) * 10_000
LINKS = Links("http://public.example", [b"k" * 32])
LANGFUSE_URL = "https://langfuse.example"
HOUR = 3600.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class DownloadServer:
    """A web server for download links, with its store and its job store."""

    def __init__(self, engine: Engine, storage: Storage, *, trusted_proxies: int = 0) -> None:
        self.time = NOW
        self.engine = engine
        self.jobs = Jobs(engine, CLAIM_POLICY)
        self.storage = storage
        self.metrics = Metrics(CollectorRegistry())
        options = DownloadOptions(trusted_proxies=trusted_proxies, langfuse_url=LANGFUSE_URL)
        self.downloads = Downloads(LINKS, self.jobs, storage, self.metrics, now=self.now, options=options)
        self.limits = Limits(connections=100)
        self.base = ""

    def now(self) -> datetime:
        return self.time

    def complete(self, data: bytes = DATA, key: str = KEY) -> str:
        """Create a completed export with its file; returns the path of its link."""
        queue(self.engine)
        self.put(data, key)
        result = replace(result_of(key), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        self.jobs.complete(claimed(self.jobs), result, url="https://store", expires_at=after(HOUR), now=NOW)
        return path()

    def put(self, data: bytes, key: str = KEY) -> None:
        """Write the file of the export, replacing any other."""
        with self.storage.open(key, "text/csv", 1) as upload:
            upload.write(data)
            upload.finish()

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.base).netloc, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, headers={name.replace("_", "-"): each for name, each in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def counted(self) -> dict[str, float]:
        samples = next(iter(self.metrics.downloads.metric.collect())).samples
        return {each.labels["outcome"]: each.value for each in samples if each.name.endswith("_total") and each.value}

    @contextlib.contextmanager
    def open(self) -> Iterator["DownloadServer"]:
        """Serve while the block runs, in a thread."""
        loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

        async def run() -> None:
            routes = self.downloads.routes()
            async with serve("127.0.0.1", 0, routes, name="links", limits=self.limits, metrics=self.metrics) as port:
                self.base = f"http://127.0.0.1:{port}"
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
        thread.start()
        try:
            assert ready.wait(20)
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(20)
            assert not thread.is_alive()
            loop.close()


def path(project_id: str = "project-1", export_id: str = "export-1") -> str:
    return urlsplit(LINKS.write(project_id, export_id)).path
