import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pipeline.memory import tune_allocators
tune_allocators()
import pyarrow as pa
pa.array([1]), pa.scalar("x")
assert "pandas" not in sys.modules, "pyarrow imported pandas"
assert pa.default_memory_pool().backend_name == "system"
import pandas
"""


def test_a_process_that_exports_has_one_allocator_and_no_pandas(tmp_path: Path) -> None:
    (tmp_path / "pandas.py").touch()  # what is tested is that pyarrow does not import it
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    subprocess.run([sys.executable, "-c", SCRIPT], env={**os.environ, "PYTHONPATH": path}, check=True)
