"""A reception over a real job store, with stand-ins for Kafka and for the pipeline."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from confluent_kafka import KafkaError
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from config.labels import Outcome
from config.metrics import Metrics
from consumer.claim import Admission
from consumer.guards import Policy
from consumer.intake import Reception
from consumer.jobs import Jobs
from consumer.models import Claim, Hold
from consumer.slots import Rhythm, Slots
from pipeline.types import Progress
from runtime.publisher import Outgoing
from tests.support.exports import NOW, TERMS

SLOTS = 1
POLICY = Policy(enabled=True, stale_after=timedelta(days=30), max_attempts=3)


@dataclass
class Post:
    """Takes what is published and answers as Kafka would."""

    sent: list[Outgoing] = field(default_factory=list)
    answers: list[KafkaError | None] = field(default_factory=list)

    def publish(self, messages: list[Outgoing]) -> list[KafkaError | None]:
        self.sent += messages
        return [self.answers.pop(0) if self.answers else None for _ in messages]


class Desk:
    """A reception over a real job store, with slots whose exports end at once."""

    def __init__(self, engine: Engine, policy: Policy = POLICY) -> None:
        self.engine = engine
        self.jobs = Jobs(engine, TERMS)
        self.post = Post()
        self.metrics = Metrics(CollectorRegistry())
        self.closed = asyncio.Event()
        self.ran: list[Claim] = []
        self.slots = Slots(
            SLOTS,
            work=self._work,
            beat=lambda _, __: Hold.KEPT,
            on_end=lambda: None,
            rhythm=Rhythm(heartbeat=60, lease=60, stall=60),
            metrics=self.metrics,
        )
        admission = Admission(jobs=self.jobs, policy=policy, worker="w", metrics=self.metrics, now=lambda: NOW)
        self.reception = Reception(
            admission=admission,
            slots=self.slots,
            publisher=self.post,  # type: ignore[arg-type] # stands in for Kafka
            dead_letter_topic="dlq",
            metrics=self.metrics,
            closed=self.closed,
        )

    def _work(self, claim: Claim, _: Progress) -> Outcome:
        self.ran.append(claim)
        return Outcome.COMPLETED

    def count(self, verdict: str) -> float:
        return self.counted("waybill_requests_total", verdict=verdict)

    def counted(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(metric, labels) or 0
