"""Keeps metric labels within closed sets, whatever a row says."""

from consumer.records import Job
from pipeline.encode import FORMATS
from pipeline.tables import TABLES


def labels_of(job: Job) -> tuple[str, str]:
    """Give the labels `table` and `format` for an export; what we don't know is "other"."""
    table, format_ = job.table, job.format.upper()
    return table if table in TABLES else "other", format_ if format_ in FORMATS else "other"
