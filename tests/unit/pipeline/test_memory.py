import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pipeline.memory import tune_allocators
tune_allocators()
import pyarrow as pa
from pyarrow import parquet
pa.array([1]), pa.scalar("x")
assert "pandas" not in sys.modules, "pyarrow imported pandas"
parquet.write_table(pa.table({"text": ["x" * 1000] * 1000}), pa.BufferOutputStream())
assert pa.system_memory_pool().max_memory() > 0
for other in (pa.mimalloc_memory_pool, pa.jemalloc_memory_pool):
    try:
        assert other().max_memory() == 0, "Arrow used an allocator of its own"
    except NotImplementedError:
        pass
import pandas
"""


def test_a_process_that_exports_has_one_allocator_and_no_pandas(tmp_path: Path) -> None:
    (tmp_path / "pandas.py").touch()  # what is tested is that pyarrow does not import it
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True)
