"""Langfuse's export queue in a Redis of the tests: jobs that BullMQ itself adds, and what becomes of them."""

import json
import subprocess
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from config.events import read_request
from tests.services import bridge
from tests.services.redis import Redis
from tests.support.daemons import eventually
from tests.support.tcp_proxy import Conditions, TcpProxy

SCRIPT = Path(__file__).with_name("add_jobs.js")
PROJECT = "my-project"


@dataclass(frozen=True)
class ExportQueue:
    """The queue in a running Redis; `script` adds jobs, in a folder with BullMQ."""

    redis: Redis
    script: Path
    prefix: str = "bull"
    cluster: bool = False

    def add(self, *data: Mapping[str, Any]) -> None:
        """Add a job for each of these data."""
        place = {
            "port": self.redis.port,
            "password": self.redis.password or None,
            "cluster": self.cluster,
            "prefix": self.prefix,
        }
        asked = json.dumps({**place, "data": data})
        subprocess.run([bridge.node(), self.script], input=asked, text=True, check=True, timeout=120)

    def add_exports(self, *export_ids: str) -> None:
        """Add jobs as Langfuse's web does, one for each export."""
        self.add(*(_job(each) for each in export_ids))

    def count(self, state: str) -> int:
        """The number of jobs that wait, are active, or have failed."""
        kind = {"failed": "zcard", "delayed": "zcard"}.get(state, "llen")
        return int(self.redis.run(kind, f"{self._queue}:{state}"))

    def jobs(self) -> list[str]:
        """The ids of all jobs that are stored."""
        pattern = f"{self._queue}:*".replace("[", r"\[")
        keys = self.redis.run("keys", pattern).splitlines()
        return [name for key in keys if (name := key.removeprefix(f"{self._queue}:")).isdigit()]

    def field(self, job: str, name: str) -> str:
        """A field of a stored job."""
        return self.redis.run("hget", f"{self._queue}:{job}", name)

    def set_field(self, job: str, name: str, value: str) -> None:
        """Change a field of a stored job."""
        self.redis.run("hset", f"{self._queue}:{job}", name, value)

    def lock_milliseconds(self, job: str) -> int:
        """For how long the lock of a job is still held; negative without a lock."""
        return int(self.redis.run("pttl", f"{self._queue}:{job}:lock"))

    def end_locks(self) -> None:
        """Let the locks of all jobs end, as time does."""
        if jobs := self.jobs():
            self.redis.run("del", *(f"{self._queue}:{job}:lock" for job in jobs))

    def empty(self) -> bool:
        """Whether no job is left."""
        return not self.jobs()

    @property
    def _queue(self) -> str:
        return f"{self.prefix}:batch-export-queue"


@dataclass(frozen=True)
class Topic:
    """The topic of requests of one test."""

    bootstrap: str
    name: str

    def exports(self) -> Counter[str]:
        """How often each export is requested in the messages that the topic has now."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "never joined", "enable.auto.commit": False}
        )
        found: Counter[str] = Counter()
        try:
            for partition in consumer.list_topics(self.name, 30).topics[self.name].partitions:
                first, end = consumer.get_watermark_offsets(TopicPartition(self.name, partition), 30)
                consumer.assign([TopicPartition(self.name, partition, first)])
                while first < end:
                    for message in consumer.consume(end - first, 1):
                        assert message.error() is None
                        found[_export_of(message)] += 1
                        first += 1
        finally:
            consumer.close()
        return found


def publish_without_completing(queue: ExportQueue, topic: Topic, proxy: TcpProxy, *exports: str) -> None:
    """Add jobs, and let a bridge that runs publish them, while Redis answers no command that writes after that."""
    proxy.apply(Conditions(silent=True))
    queue.add_exports(*exports)
    eventually(lambda: queue.count("active") == len(exports), what="the jobs are active")
    queue.redis.run("client", "pause", "3600000", "write")
    proxy.heal()
    eventually(lambda: set(topic.exports()) == set(exports), what="the requests are published")


def new_ids(count: int) -> list[str]:
    """Ids of exports, as Langfuse makes them."""
    return [f"cm{uuid.uuid4().hex[:23]}" for _ in range(count)]


def _job(export_id: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    payload = {"projectId": PROJECT, "batchExportId": export_id}
    return {"id": export_id, "name": "batch-export-job", "timestamp": now, "payload": payload}


def _export_of(message: Any) -> str:
    request = read_request(message.value())
    assert message.key() == request.batch_export_id.encode()
    assert request.project_id == PROJECT
    return request.batch_export_id
