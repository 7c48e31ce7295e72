"""Fills the tables of a Postgres database with the rows of a large installation after a year."""

from datetime import datetime

from sqlalchemy import Engine, text

QUEUED = 10_000
RUNNING = 200
WAITING = 100
"""Notices and events that are not delivered yet."""

_FILL = (
    """
    INSERT INTO batch_exports
        (id, created_at, updated_at, project_id, user_id, finished_at, expires_at, name, status, query, format, url)
    SELECT 'export-' || n, made, made, 'project-' || n % 500, 'user-' || n % 2000,
        CASE WHEN ended THEN made + interval '1 minute' END, CASE WHEN done THEN made + interval '1 day' END, 'name',
        CASE WHEN n <= :queued THEN 'QUEUED' WHEN NOT ended THEN 'PROCESSING' WHEN n % 50 = 0 THEN 'CANCELLED'
            WHEN n % 20 = 0 THEN 'FAILED' ELSE 'COMPLETED' END,
        '{"tableName": "traces", "filter": [], "orderBy": null}', 'CSV', CASE WHEN done THEN 'https://files' END
    FROM (SELECT n, n > :queued + :running AS ended, n > :queued + :running AND n % 20 <> 0 AND n % 50 <> 0 AS done,
        CAST(:now AS timestamp) - CASE WHEN n <= :queued THEN n * interval '1 second' ELSE n * interval '30 seconds' END
            AS made
        FROM generate_series(1, :size) AS n) AS numbers
    """,
    """
    INSERT INTO waybill_runs (export_id, attempt, project_id, worker, claimed_at, heartbeat_at, lease_until,
        finished_at, outcome, failures, rows, bytes, object_key, sha256, next_attempt_at)
    SELECT id, 1, project_id, 'worker', created_at, created_at,
        CASE WHEN status = 'PROCESSING' THEN CAST(:now AS timestamp) + interval '1 minute' ELSE created_at END,
        finished_at, CASE status WHEN 'COMPLETED' THEN 'completed' WHEN 'FAILED' THEN 'failed'
            WHEN 'CANCELLED' THEN 'cancelled' END, 0, 1, 1,
        CASE WHEN status = 'COMPLETED' AND (expires_at > :now OR right(id, 3) = '111') THEN 'key-' || id END, 'sha',
        CASE WHEN status = 'FAILED' THEN created_at END
    FROM batch_exports WHERE status <> 'QUEUED'
    """,
    """
    INSERT INTO waybill_notices (event_id, channel, export_id, attempt, status, payload, state, attempts, created_at,
        next_attempt_at, sent_at, message_id)
    SELECT 'event-' || n, 'mail', 'export-' || n, 1, 'COMPLETED', repeat('x', 400),
        CASE WHEN n <= :waiting THEN 'pending' ELSE 'sent' END, 1, CAST(:now AS timestamp) - n * interval '30 seconds',
        CASE WHEN n <= :waiting THEN CAST(:now AS timestamp) + interval '1 hour' END,
        CASE WHEN n > :waiting THEN CAST(:now AS timestamp) - n * interval '30 seconds' END, 'message-' || n
    FROM generate_series(1, :size) AS n
    """,
    """
    INSERT INTO waybill_outbox (topic, key, payload, created_at, published_at)
    SELECT 'export-completions', 'export-' || n, repeat('x', 400),
        CAST(:now AS timestamp) - (:size - n) * interval '500 milliseconds',
        CASE WHEN n <= :size - :waiting THEN CAST(:now AS timestamp) - (:size - n) * interval '500 milliseconds' END
    FROM generate_series(1, :size) AS n
    """,
)


def fill(engine: Engine, size: int, now: datetime) -> None:
    """Insert this many rows into each table, and collect the statistics that plans are made from."""
    values = {"size": size, "queued": QUEUED, "running": RUNNING, "waiting": WAITING, "now": now.replace(tzinfo=None)}
    with engine.begin() as connection:
        for statement in _FILL:
            connection.execute(text(statement), values)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in ("batch_exports", "waybill_runs", "waybill_notices", "waybill_outbox"):
            connection.execute(text(f"VACUUM ANALYZE {table}"))
