"""Keeps metric labels within closed sets, whatever a row says, and lets every counter begin at 0."""

from itertools import product

from config.labels import Failure, Outcome, UploadOutcome, Verdict
from config.metrics import Metrics
from consumer.models import Job
from pipeline.encode import FORMATS
from pipeline.tables import TABLES

OTHER = "other"
UPLOADS: tuple[UploadOutcome, ...] = ("completed", "aborted")
LETTERS = (Verdict.MALFORMED, Verdict.MISSING, Verdict.DISABLED, Verdict.BUG)


def labels_of(job: Job) -> tuple[str, str]:
    """Give the labels `table` and `format` for an export; what we don't know is "other"."""
    table, format_ = job.table, job.format.upper()
    return table if table in TABLES else OTHER, format_ if format_ in FORMATS else OTHER


def start_at_zero(metrics: Metrics) -> None:
    """Show every series of the consumer's counters: the first event of one that was not there is no increase."""
    for verdict in Verdict:
        metrics.requests.labels(verdict)
    for verdict in LETTERS:
        metrics.dead_letters.labels(verdict)
    for failure in Failure:
        metrics.attempts_failed.labels(failure)
    for outcome in UPLOADS:
        metrics.uploads.labels(outcome)
    for table, format_ in product((*TABLES, OTHER), (*FORMATS, OTHER)):
        metrics.exports_started.labels(table, format_)
        for ending in Outcome:
            metrics.exports.labels(ending, table, format_)
