import subprocess
import sys

SCRIPT = """
import sys
from pipeline.memory import keep_small
keep_small()
import pyarrow as pa
pa.array([1]), pa.scalar("x")
assert "pandas" not in sys.modules, "pyarrow imported pandas"
assert pa.default_memory_pool().backend_name == "system"
import pandas
"""


def test_a_process_that_exports_has_one_allocator_and_no_pandas() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
