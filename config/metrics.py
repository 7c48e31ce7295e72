"""Declares every metric once: name, labels (closed sets only) and buckets."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Generic, TypeVar, TypeVarTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from config.labels import (
    Channel,
    ClosedConnection,
    DownloadOutcome,
    Failure,
    NoticeChannel,
    NoticeOutcome,
    Outcome,
    PartOutcome,
    PoolState,
    PortName,
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

    `table` and `format` are plain texts, because their values come from pipeline's registries (or are "other").
    """

    metric: Metric

    def labels(self, *values: *Labels) -> Metric:
        """Return the series with these labels; `/metrics` shows it from then on."""
        return self.metric.labels(*values)


class Metrics:
    """The metrics of one process, registered in `registry`; both daemons serve all of them on `/metrics`.

    Labels come from closed sets (config/labels.py, tables, formats, topics), never from an id or an error text.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests: Labelled[Counter, Verdict] = Labelled(
            Counter("waybill_requests", "Export requests processed, by verdict.", ["verdict"], registry=registry)
        )
        self.exports: Labelled[Counter, Outcome, str, str] = Labelled(
            Counter(
                "waybill_exports",
                "Finished attempts, by outcome, table and format.",
                ["outcome", "table", "format"],
                registry=registry,
            )
        )
        self.exports_started: Labelled[Counter, str, str] = Labelled(
            Counter(
                "waybill_exports_started",
                "Started attempts, by table and format.",
                ["table", "format"],
                registry=registry,
            )
        )
        self.attempts_failed: Labelled[Counter, Failure] = Labelled(
            Counter(
                "waybill_attempts_failed",
                "Failed attempts, and exports that the guards failed, by reason.",
                ["reason"],
                registry=registry,
            )
        )
        self.dead_letters: Labelled[Counter, Verdict] = Labelled(
            Counter(
                "waybill_dead_letters",
                "Requests moved to the dead-letter topic, by verdict.",
                ["verdict"],
                registry=registry,
            )
        )
        self.unreadable_records: Labelled[Counter, str] = Labelled(
            Counter(
                "waybill_unreadable_records",
                "Records or batches that Kafka delivered and that can't be decoded, by topic.",
                ["topic"],
                registry=registry,
            )
        )
        self.rows: Labelled[Counter, str, str] = Labelled(
            Counter(
                "waybill_rows", "Rows in completed files, by table and format.", ["table", "format"], registry=registry
            )
        )
        self.bytes: Labelled[Counter, SizeKind, str] = Labelled(
            Counter(
                "waybill_bytes",
                "Size of completed files in bytes, before compression (raw) and as stored.",
                ["kind", "format"],
                registry=registry,
            )
        )
        self.unknown_keys: Labelled[Counter, str] = Labelled(
            Counter(
                "waybill_exports_with_unknown_keys",
                "Completed exports whose query has keys that Waybill does not know, by table.",
                ["table"],
                registry=registry,
            )
        )
        self.running = Gauge("waybill_exports_running", "Exports that run in this process now.", registry=registry)
        self.slots = Gauge("waybill_slots", "Exports that this process can run at the same time.", registry=registry)
        self.duration: Labelled[Histogram, Outcome] = Labelled(
            Histogram(
                "waybill_export_duration_seconds",
                "Time from the claim of an attempt to its end, in seconds.",
                ["outcome"],
                buckets=HOURS,
                registry=registry,
            )
        )
        self.queue_wait = Histogram(
            "waybill_queue_wait_seconds",
            "Time from the creation of an export to its first claim, in seconds.",
            buckets=HOURS,
            registry=registry,
        )
        self.stage_seconds: Labelled[Counter, Stage] = Labelled(
            Counter(
                "waybill_stage_seconds",
                "Time spent in each stage of the pipeline, in seconds.",
                ["stage"],
                registry=registry,
            )
        )
        self.upload_parts: Labelled[Counter, PartOutcome] = Labelled(
            Counter("waybill_upload_parts", "Parts of uploads, by outcome.", ["outcome"], registry=registry)
        )
        self.uploads: Labelled[Counter, UploadOutcome] = Labelled(
            Counter("waybill_uploads", "Finished uploads, by outcome.", ["outcome"], registry=registry)
        )
        self.notices: Labelled[Counter, NoticeChannel, NoticeOutcome] = Labelled(
            Counter(
                "waybill_notices",
                "Completion events and attempts to send their notices, by channel and outcome.",
                ["channel", "outcome"],
                registry=registry,
            )
        )
        self.downloads: Labelled[Counter, DownloadOutcome] = Labelled(
            Counter("waybill_downloads", "Requests for download links, by outcome.", ["outcome"], registry=registry)
        )
        self.connections_closed: Labelled[Counter, PortName, ClosedConnection] = Labelled(
            Counter(
                "waybill_http_connections_closed",
                "HTTP connections closed because the client broke a limit, by port and reason.",
                ["port", "reason"],
                registry=registry,
            )
        )
        self.last_success = Gauge(
            "waybill_last_success_timestamp_seconds",
            "Time of the last export that this process completed, as a Unix timestamp in seconds.",
            registry=registry,
        )
        self.queued = Gauge("waybill_exports_queued", "Exports that are queued in the database.", registry=registry)
        self.in_future = Gauge(
            "waybill_exports_in_future",
            "Queued exports with a creation time more than a minute in the future.",
            registry=registry,
        )
        self.oldest_queued = Gauge(
            "waybill_oldest_queued_seconds", "Age of the oldest queued export, in seconds.", registry=registry
        )
        self.oldest_heartbeat = Gauge(
            "waybill_oldest_heartbeat_seconds",
            "Time since the last heartbeat of a running export, the longest of all workers, in seconds.",
            registry=registry,
        )
        self.outbox_waiting = Gauge(
            "waybill_outbox_waiting", "Events in the outbox that are not yet published.", registry=registry
        )
        self.outbox_oldest = Gauge(
            "waybill_outbox_oldest_seconds", "Age of the oldest unpublished event, in seconds.", registry=registry
        )
        self.outbox_refused = Counter(
            "waybill_outbox_refused", "Events in the outbox that Kafka refuses for good.", registry=registry
        )
        self.notices_waiting: Labelled[Gauge, Channel] = Labelled(
            Gauge(
                "waybill_notices_waiting", "Notices that are not yet sent, by channel.", ["channel"], registry=registry
            )
        )
        self.oldest_notice: Labelled[Gauge, Channel] = Labelled(
            Gauge(
                "waybill_oldest_notice_seconds",
                "Age of the oldest unsent notice, in seconds, by channel.",
                ["channel"],
                registry=registry,
            )
        )
        self.kafka_lag = Gauge(
            "waybill_kafka_lag",
            "Messages after the committed offsets of the partitions assigned to this process, by topic.",
            ["topic"],
            registry=registry,
        )
        self.event_loop_lag = Gauge(
            "waybill_event_loop_lag_seconds",
            "Largest delay of the event loop in the last 30 seconds, in seconds.",
            registry=registry,
        )
        self.database_connections: Labelled[Gauge, PoolState] = Labelled(
            Gauge(
                "waybill_database_connections",
                "Database connections in the pool, by state.",
                ["state"],
                registry=registry,
            )
        )
        build = Gauge("waybill_build_info", "Always 1; the label has the version.", ["version"], registry=registry)
        build.labels(version=version("waybill")).set(1)
