"""Prints the CPU of small exports as multiples of ClickHouse's own, beside the committed ones.

`python -m tests.bench.ratios` fails for no ratio: one that differs by more than DIFFERENCE is marked, and a person
decides. `--write` replaces `ratios.json` by the ratios of this run.
"""

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console

from embedded import stack
from tests.bench.measure import Benchmark, Target, compare_cpu, fill_traces, find_server

COMMITTED = Path(__file__).with_name("ratios.json")
FORMATS = ("CSV", "JSONL", "PARQUET")
ROWS, PAYLOAD, REPEATS = 30_000, 700, 3
DIFFERENCE = 0.25


def main() -> None:
    """Measure each format, and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the committed ratios")
    write = parser.parse_args().write
    found = _measure()
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    console = Console()
    console.print(f"CPU of exports of {ROWS:,} traces, as a multiple of that of ClickHouse itself:")
    for form, ratio in found.items():
        before = committed.get(form, ratio)
        marked = "  <- differs" if abs(ratio - before) > DIFFERENCE * before else ""
        console.print(f"  {form:<8} {ratio:.2f}, committed {before:.2f}{marked}", highlight=False)
    if write:
        COMMITTED.write_text(json.dumps(found, indent=2) + "\n")


def _measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="waybill-ratios-") as name:
        folder = Path(name)
        with stack.run_stack(folder / "parts") as parts:
            bench = Benchmark(parts.clickhouse, find_server(), f"sqlite:///{folder}/bench.sqlite", REPEATS)
            fill_traces(bench, ROWS, PAYLOAD)
            files = Target("file", folder.as_uri(), {})
            return {
                form: round(compare_cpu(bench.best("export", form, files), bench.best("server", form, files)), 2)
                for form in FORMATS
            }


if __name__ == "__main__":
    main()
