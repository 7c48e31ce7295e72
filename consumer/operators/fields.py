"""Names the fields of the JSON that the operators' API answers with."""

from datetime import datetime
from typing import Any

from config.events import Status
from consumer.models import FARTHEST, Job, Run
from consumer.operators.statements import Row
from runtime.dead_letters import DeadLetter

Fields = dict[str, Any]

TEXT_CHARACTERS = 1000


def write_time(value: datetime | None) -> str | None:
    """Return a time as ISO 8601 in UTC with milliseconds and Z."""
    return None if value is None else value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def describe_queued(row: Row, now: datetime) -> Fields:
    """Describe a queued export; it has waited since it was last set to QUEUED."""
    return _identify(row) | {
        "createdAt": write_time(row["created_at"]),
        "waitingSince": write_time(row["updated_at"]),
        "waitingSeconds": _age(row["updated_at"], now),
        "attempts": row["attempt"] or 0,
        "nextAttemptAt": write_time(row["next_attempt_at"]),
        "reason": row["error"],
    }


def describe_running(row: Row, now: datetime) -> Fields:
    """Describe an export that is PROCESSING; without a live lease, no worker is running it."""
    lease_until, finished_at = row["lease_until"], row["finished_at"]
    live = lease_until is not None and finished_at is None and now < lease_until <= now + FARTHEST
    return _identify(row) | {
        "attempt": row["attempt"],
        "pod": row["worker"],
        "since": write_time(row["claimed_at"]),
        "seconds": _age(row["claimed_at"], now),
        "heartbeatAt": write_time(row["heartbeat_at"]),
        "live": live,
        "stage": row["stage"],
        "rows": row["rows"] or 0,
        "rowsPerSecond": _rate(row),
        "bytes": row["bytes"] or 0,
    }


def describe_ending(row: Row) -> Fields:
    """Describe how an export ended; `status` is what its row says now, and None if the row was deleted."""
    ended_at, claimed_at = row.get("finished_at"), row.get("claimed_at")
    seconds = _age(claimed_at, ended_at) if ended_at is not None else None
    return _identify(row) | {
        "status": row.get("status"),
        "outcome": row["outcome"],
        "attempt": row["attempt"],
        "pod": row.get("worker"),
        "endedAt": write_time(ended_at),
        "seconds": seconds,
        "rows": row.get("rows"),
        "bytes": row.get("bytes"),
        "errorClass": row.get("error_class"),
        "reason": row.get("error") or _failure_text(row),
    }


def describe_notice(row: Row, now: datetime) -> Fields:
    """Describe a notice that is not sent yet."""
    return {
        "projectId": row["project_id"],
        "id": row["id"],
        "channel": row["channel"],
        "state": row["state"],
        "attempts": row["attempts"],
        "waitingSeconds": _age(row["created_at"], now),
        "nextAttemptAt": write_time(row["next_attempt_at"]),
        "reason": row["error"],
    }


def describe_dead_letter(letter: DeadLetter) -> Fields:
    """Describe a dead letter without its value."""
    key = None if letter.key is None else letter.key.decode(errors="backslashreplace")[:TEXT_CHARACTERS]
    return {
        "position": f"{letter.partition}:{letter.offset}",
        "key": key,
        "topic": letter.why.get("topic"),
        "time": letter.why.get("time"),
        "errorClass": letter.why.get("error-class"),
        "reason": letter.why.get("reason", "")[:TEXT_CHARACTERS] or None,
    }


def describe_export(job: Job, attempts: list[Run]) -> Fields:
    """Describe one export with all its attempts, first to last."""
    return {
        "projectId": job.project_id,
        "id": job.id,
        "userId": job.user_id,
        "name": job.name,
        "table": job.table,
        "format": job.format,
        "status": job.status,
        "query": job.query,
        "createdAt": write_time(job.created_at),
        "updatedAt": write_time(job.updated_at),
        "finishedAt": write_time(job.finished_at),
        "expiresAt": write_time(job.expires_at),
        "log": job.log,
        "attempts": [_describe_attempt(run) for run in attempts],
    }


def _describe_attempt(run: Run) -> Fields:
    return {
        "attempt": run.attempt,
        "pod": run.worker,
        "since": write_time(run.claimed_at),
        "heartbeatAt": write_time(run.heartbeat_at),
        "endedAt": write_time(run.finished_at),
        "outcome": run.outcome,
        "errorClass": run.error_class,
        "reason": run.error,
        "rows": run.rows,
        "bytes": run.bytes,
        "sha256": run.sha256,
        "truncated": run.truncated,
        "nextAttemptAt": write_time(run.next_attempt_at),
    }


def _identify(row: Row) -> Fields:
    names = {"projectId": "project_id", "id": "id", "name": "name", "table": "table", "format": "format"}
    return {field: row.get(name) for field, name in names.items()}


def _failure_text(row: Row) -> str | None:
    text: str | None = row.get("log") if row.get("status") == Status.FAILED else None
    return text


def _age(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else max(round((now - since).total_seconds(), 3), 0.0)


def _rate(row: Row) -> float | None:
    """Return rows per second up to the last heartbeat."""
    if row["claimed_at"] is None or row["heartbeat_at"] is None:
        return None
    seconds = (row["heartbeat_at"] - row["claimed_at"]).total_seconds()
    return round((row["rows"] or 0) / seconds, 1) if seconds > 0 else None
