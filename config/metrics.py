"""Declares every metric, once: names, labels (closed sets only) and buckets."""

from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

HOURS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800)


class Metrics:
    """The metrics of one process, registered in the registry given; `/metrics` of both daemons shows them.

    Labels come from closed sets: a verdict, outcome, stage, table, format or kind; never an id or an error text.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "waybill_requests", "Export requests looked at, by verdict.", ["verdict"], registry=registry
        )
        self.exports = Counter(
            "waybill_exports", "Attempts ended, by outcome.", ["outcome", "table", "format"], registry=registry
        )
        self.rows = Counter("waybill_rows", "Rows in files delivered.", ["table", "format"], registry=registry)
        self.bytes = Counter(
            "waybill_bytes", "Bytes of files delivered: raw, and stored.", ["kind", "format"], registry=registry
        )
        self.running = Gauge("waybill_exports_running", "Exports running in this process.", registry=registry)
        self.slots = Gauge("waybill_slots", "Exports that this process may run at once.", registry=registry)
        self.duration = Histogram(
            "waybill_export_duration_seconds", "From claim to settled.", ["outcome"], buckets=HOURS, registry=registry
        )
        self.queue_wait = Histogram(
            "waybill_queue_wait_seconds",
            "From the row's creation to the first claim.",
            buckets=HOURS,
            registry=registry,
        )
        self.stage_seconds = Counter(
            "waybill_stage_seconds", "Seconds spent in each stage of the pipeline.", ["stage"], registry=registry
        )
        self.upload_parts = Counter(
            "waybill_upload_parts", "Parts of uploads, by outcome.", ["outcome"], registry=registry
        )
        self.notices = Counter("waybill_notices", "Notices, by outcome.", ["outcome"], registry=registry)
        self.downloads = Counter(
            "waybill_downloads", "Download links followed, by what they led to.", ["outcome"], registry=registry
        )
        self.last_success = Gauge(
            "waybill_last_success_timestamp_seconds",
            "When an export was last completed by this process.",
            registry=registry,
        )
        build = Gauge("waybill_build_info", "Always 1; the version is the label.", ["version"], registry=registry)
        build.labels(version=version("waybill")).set(1)
