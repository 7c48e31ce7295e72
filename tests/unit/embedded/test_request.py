"""Requests of the embedded ClickHouse are parsed without the engine."""

import subprocess
import sys


def test_reading_a_request_loads_no_engine() -> None:
    code = "import sys, embedded.clickhouse.request; print('chdb' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "False"
