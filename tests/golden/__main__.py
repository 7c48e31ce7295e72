"""Writes the files again: `python -m tests.golden`; their content comes from the oracle alone."""

import tempfile
from pathlib import Path

from embedded import stack as embedded_parts
from tests.golden.cases import CASES, ENDINGS, FILES, world
from tests.golden.writer import written
from tests.oracle import load, raw
from tests.oracle.expected import expected, table_of
from tests.oracle.pools import CUTOFF
from tests.services.stacks import Embedded
from tests.support.databases import open_databases


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with embedded_parts.run_stack(folder / "parts") as parts, Embedded(parts).stack(folder) as stack:
            environment = stack.environment()
            address, database = environment["CLICKHOUSE_URL"], environment["CLICKHOUSE_DB"]
            with open_databases(environment) as databases:
                load.fill(address, database, databases.engine, world())
                _write(raw.load(address, database, databases.engine))


def _write(rows: raw.World) -> None:
    FILES.mkdir(exist_ok=True)
    for case in CASES:
        query = case.query
        table = table_of(rows, case.project, query["tableName"], CUTOFF, use_events_table=query["useEventsTable"])
        wanted = expected(table, query)
        for file_format in ENDINGS:
            case.path(file_format).write_bytes(written(wanted, file_format))
        print(f"{case.name}: {len(wanted.rows)} rows")


if __name__ == "__main__":
    main()
