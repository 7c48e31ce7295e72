from prometheus_client import CollectorRegistry

from config.metrics import Metrics
from consumer.labels import start_at_zero

NAMES = (
    "waybill_requests_total",
    "waybill_exports_started_total",
    "waybill_exports_total",
    "waybill_attempts_failed_total",
    "waybill_dead_letters_total",
    "waybill_uploads_total",
)


def test_every_counter_of_the_consumer_begins_at_zero() -> None:
    metrics = Metrics(CollectorRegistry())
    start_at_zero(metrics)

    samples = [each for family in metrics.registry.collect() for each in family.samples if each.name in NAMES]

    assert {each.name for each in samples} == set(NAMES)
    assert {each.value for each in samples} == {0}
    reasons = {each.labels["reason"] for each in samples if each.name == "waybill_attempts_failed_total"}
    assert {"unavailable", "bug", "lost", "rejected", "stale"} <= reasons
    assert {each.labels["table"] for each in samples if "table" in each.labels} >= {"traces", "scores", "other"}
