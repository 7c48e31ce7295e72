"""Declares every metric, once: names, labels (closed sets only) and buckets."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Generic, TypeVar, TypeVarTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from config.labels import (
    DownloadOutcome,
    Failure,
    NoticeOutcome,
    Outcome,
    PartOutcome,
    PoolState,
    SizeKind,
    Stage,
    UploadOutcome,
    Verdict,
)

HOURS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800)

Metric = TypeVar("Metric", Counter, Gauge, Histogram)
Labels = TypeVarTuple("Labels")


@dataclass(frozen=True)
class Labelled(Generic[Metric, *Labels]):
    """A metric whose type names the values of its labels, in order, so that mypy finds a wrong one.

    The labels `table` and `format` are texts: their values are those of pipeline's registries, and "other".
    """

    metric: Metric

    def labels(self, *values: *Labels) -> Metric:
        """Return the series with these labels; it is shown from then on."""
        return self.metric.labels(*values)


class Metrics:
    """The metrics of one process, registered in the registry given; `/metrics` of both daemons shows them.

    Labels come from closed sets (config/labels.py, tables, formats, topics), never from an id or an error text.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests: Labelled[Counter, Verdict] = Labelled(
            Counter("waybill_requests", "Export requests looked at, by verdict.", ["verdict"], registry=registry)
        )
        self.exports: Labelled[Counter, Outcome, str, str] = Labelled(
            Counter("waybill_exports", "Attempts ended, by outcome.", ["outcome", "table", "format"], registry=registry)
        )
        self.exports_started: Labelled[Counter, str, str] = Labelled(
            Counter("waybill_exports_started", "Attempts begun: claims made.", ["table", "format"], registry=registry)
        )
        self.attempts_failed: Labelled[Counter, Failure] = Labelled(
            Counter(
                "waybill_attempts_failed",
                "Attempts that failed, and exports refused as failed, by reason.",
                ["reason"],
                registry=registry,
            )
        )
        self.dead_letters: Labelled[Counter, Verdict] = Labelled(
            Counter(
                "waybill_dead_letters",
                "Messages put aside as dead letters, by verdict.",
                ["verdict"],
                registry=registry,
            )
        )
        self.rows: Labelled[Counter, str, str] = Labelled(
            Counter("waybill_rows", "Rows in files delivered.", ["table", "format"], registry=registry)
        )
        self.bytes: Labelled[Counter, SizeKind, str] = Labelled(
            Counter(
                "waybill_bytes", "Bytes of files delivered: raw, and stored.", ["kind", "format"], registry=registry
            )
        )
        self.running = Gauge("waybill_exports_running", "Exports running in this process.", registry=registry)
        self.slots = Gauge("waybill_slots", "Exports that this process may run at once.", registry=registry)
        self.duration: Labelled[Histogram, Outcome] = Labelled(
            Histogram(
                "waybill_export_duration_seconds",
                "From claim to settled.",
                ["outcome"],
                buckets=HOURS,
                registry=registry,
            )
        )
        self.queue_wait = Histogram(
            "waybill_queue_wait_seconds",
            "From the row's creation to the first claim.",
            buckets=HOURS,
            registry=registry,
        )
        self.stage_seconds: Labelled[Counter, Stage] = Labelled(
            Counter(
                "waybill_stage_seconds", "Seconds spent in each stage of the pipeline.", ["stage"], registry=registry
            )
        )
        self.upload_parts: Labelled[Counter, PartOutcome] = Labelled(
            Counter("waybill_upload_parts", "Parts of uploads, by outcome.", ["outcome"], registry=registry)
        )
        self.uploads: Labelled[Counter, UploadOutcome] = Labelled(
            Counter("waybill_uploads", "Uploads ended, by outcome.", ["outcome"], registry=registry)
        )
        self.notices: Labelled[Counter, NoticeOutcome] = Labelled(
            Counter("waybill_notices", "Notices, by outcome.", ["outcome"], registry=registry)
        )
        self.downloads: Labelled[Counter, DownloadOutcome] = Labelled(
            Counter(
                "waybill_downloads", "Download links followed, by what they led to.", ["outcome"], registry=registry
            )
        )
        self.last_success = Gauge(
            "waybill_last_success_timestamp_seconds",
            "When an export was last completed by this process.",
            registry=registry,
        )
        self.queued = Gauge("waybill_exports_queued", "Exports that wait in the database.", registry=registry)
        self.oldest_queued = Gauge(
            "waybill_oldest_queued_seconds", "Since when the export waits that waits the longest.", registry=registry
        )
        self.oldest_heartbeat = Gauge(
            "waybill_oldest_heartbeat_seconds",
            "Age of the oldest last heartbeat among exports that are being run anywhere.",
            registry=registry,
        )
        self.outbox_waiting = Gauge(
            "waybill_outbox_waiting", "Completion events that Kafka has not confirmed.", registry=registry
        )
        self.outbox_oldest = Gauge("waybill_outbox_oldest_seconds", "Age of the oldest of them.", registry=registry)
        self.notices_waiting = Gauge("waybill_notices_waiting", "Notices that wait to be sent.", registry=registry)
        self.oldest_notice = Gauge("waybill_oldest_notice_seconds", "Age of the oldest of them.", registry=registry)
        self.kafka_lag = Gauge(
            "waybill_kafka_lag",
            "Messages after the committed offsets of the partitions assigned to this process.",
            ["topic"],
            registry=registry,
        )
        self.event_loop_lag = Gauge(
            "waybill_event_loop_lag_seconds",
            "How late the event loop woke up, at worst in the last half minute.",
            registry=registry,
        )
        self.database_connections: Labelled[Gauge, PoolState] = Labelled(
            Gauge("waybill_database_connections", "Connections of the pool, by state.", ["state"], registry=registry)
        )
        build = Gauge("waybill_build_info", "Always 1; the version is the label.", ["version"], registry=registry)
        build.labels(version=version("waybill")).set(1)
