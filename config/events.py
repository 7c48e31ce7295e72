"""Declares the events on Kafka, the request and the completion, and how each is read and written."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

# Postgres stores neither NUL in a text nor more than 31 bits in an attempt: such an event could never become a row.
Id = Annotated[str, Field(min_length=1, max_length=512, strict=True, pattern=r"^[^\x00]+$")]
LAST_ATTEMPT = 2**31 - 1
Attempt = Annotated[int, Field(ge=0, le=LAST_ATTEMPT)]


class Status(StrEnum):
    """The states of `batch_exports.status`."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Malformed(ValueError):
    """A message is not the event that its topic carries; the text says what is wrong with it."""


class _Event(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    def encode(self) -> bytes:
        """Return the event as JSON with camelCase names."""
        return self.model_dump_json(by_alias=True).encode()


E = TypeVar("E", bound=_Event)


class ExportRequested(_Event):
    """Asks to look at an export's row: one message on `export-requests`, keyed by `batchExportId`."""

    project_id: Id
    batch_export_id: Id


class ExportFinished(_Event):
    """Reports that an export ended COMPLETED or FAILED: a message on `export-completions`, keyed by `batchExportId`.

    It holds ids and numbers only: no address, no link, no query. `bytes` is the size of the object as stored.
    """

    event_id: Id
    project_id: Id
    batch_export_id: Id
    attempt: Attempt
    status: Literal[Status.COMPLETED, Status.FAILED]
    table_name: str | None
    format: str
    rows: int
    bytes: int
    sha256: str | None
    truncated: bool
    started_at: datetime | None
    finished_at: datetime
    expires_at: datetime | None
    error: str | None
    ignored: tuple[str, ...] = ()


def are_valid_ids(project_id: str, export_id: str) -> bool:
    """Return whether these ids are valid in an event; without one, nobody can be notified of the export's end."""
    try:
        ExportRequested(project_id=project_id, batch_export_id=export_id)
    except ValidationError:
        return False
    return True


def read_request(value: bytes | None) -> ExportRequested:
    """Read one message of `export-requests`; raises Malformed."""
    return _read(ExportRequested, value)


def read_finished(value: bytes | None) -> ExportFinished:
    """Read one message of `export-completions`; raises Malformed."""
    return _read(ExportFinished, value)


def _read(kind: type[E], value: bytes | None) -> E:
    if not value:
        raise Malformed("the message is empty")
    try:
        return kind.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Malformed(f"{where}: {first['msg']}" if where else first["msg"]) from error
