"""An intake with a real job store and fakes for Kafka and for the pipeline."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from confluent_kafka import KafkaError
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from config.labels import Outcome
from config.metrics import Metrics
from consumer.claim import Claimer
from consumer.guards import GuardPolicy
from consumer.heartbeat import Timing
from consumer.intake import Intake
from consumer.job_store import Jobs
from consumer.models import Claim, LeaseState
from consumer.slots import Slots
from pipeline.progress import Progress
from runtime.publisher import Outgoing
from tests.support.exports import CLAIM_POLICY, NOW

SLOTS = 1
POLICY = GuardPolicy(enabled=True, stale_after=timedelta(days=30), max_attempts=3)


@dataclass
class FakePublisher:
    """Records what is published; `answers` are Kafka's, in order, and then success."""

    sent: list[Outgoing] = field(default_factory=list)
    answers: list[KafkaError | None] = field(default_factory=list)

    def publish(self, messages: list[Outgoing]) -> list[KafkaError | None]:
        self.sent += messages
        return [self.answers.pop(0) if self.answers else None for _ in messages]


class ScriptedIntake:
    """An intake with a real job store, whose exports end in their slots when `before_end` returns."""

    def __init__(self, engine: Engine, policy: GuardPolicy = POLICY) -> None:
        self.engine = engine
        self.jobs = Jobs(engine, CLAIM_POLICY)
        self.publisher = FakePublisher()
        self.metrics = Metrics(CollectorRegistry())
        self.closed = asyncio.Event()
        self.ran: list[Claim] = []
        self.before_end: Callable[[], object] = lambda: None
        self.slots = Slots(
            SLOTS,
            work=self._work,
            extend_lease=lambda _, __: LeaseState.KEPT,
            on_end=lambda: None,
            timing=Timing(heartbeat=60, lease=60, stall=60),
            metrics=self.metrics,
        )
        claimer = Claimer(jobs=self.jobs, policy=policy, worker="w", metrics=self.metrics, now=lambda: NOW)
        self.intake = Intake(
            claimer=claimer,
            slots=self.slots,
            publisher=self.publisher,  # type: ignore[arg-type] # stands in for Kafka
            dead_letter_topic="dlq",
            metrics=self.metrics,
            closed=self.closed,
        )

    def _work(self, claim: Claim, _: Progress) -> Outcome:
        self.ran.append(claim)
        self.before_end()
        return Outcome.COMPLETED

    def count(self, verdict: str) -> float:
        return self.counted("waybill_requests_total", verdict=verdict)

    def counted(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(metric, labels) or 0
