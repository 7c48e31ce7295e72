"""Measures a comment filter that matches many objects: `python -m tests.bench.comment_filters 50000 500000`."""

import resource
import sys
import tempfile
import time
from pathlib import Path

import psutil
from sqlalchemy import text

from embedded import stack as embedded_parts
from tests.services.stacks import Embedded
from tests.support.databases import Databases, open_databases

FILTERS = [
    {"type": "string", "column": "commentContent", "operator": "contains", "value": "NEEDLE"},
    {"type": "number", "column": "commentCount", "operator": ">=", "value": 1},
]

_COMMENTS = """
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :count)
INSERT INTO comments (id, project_id, object_type, object_id, content, created_at, updated_at)
SELECT 'c' || n, 'p', 'TRACE', 'a trace with a longish id ' || n, 'a needle, and more', :now, :now FROM numbers
"""
_TRACES = """
INSERT INTO traces (id, project_id, timestamp, name, event_ts, is_deleted)
SELECT 'a trace with a longish id ' || toString(number), 'p', '2026-05-10 12:00:00', 'n', '2026-05-10 12:00:00', 0
FROM numbers({count:UInt64})
"""


def fill(databases: Databases, count: int) -> None:
    """Create this many traces with a comment each, and as many without."""
    databases.client.command(_TRACES, parameters={"count": 2 * count})
    with databases.engine.begin() as connection:
        connection.execute(text(_COMMENTS), {"count": count, "now": "2026-05-10 12:00:00"})


def main(counts: list[int]) -> None:
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with (
                embedded_parts.run_stack(folder / "parts") as parts,
                Embedded(parts).stack(folder) as stack,
                open_databases(stack.environment()) as databases,
            ):
                fill(databases, count)
                _measure(databases, count)


def _measure(databases: Databases, count: int) -> None:
    before, begun = psutil.Process().memory_info().rss, time.perf_counter()
    rows = 0

    def each(batch: object) -> None:
        nonlocal rows
        rows += batch.num_rows  # type: ignore[attr-defined] # a record batch

    databases.read_through(each, filter=FILTERS)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{count:,} ids from comment filters: {rows:,} of {2 * count:,} traces in {seconds:.1f} s, "
        f"{before >> 20} MiB before, {peak >> 20} MiB at the peak"
    )
    assert rows == count


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]] or [50_000, 500_000])
