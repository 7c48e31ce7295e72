"""Moves the data: an ExportSpec in, one finished object and an ExportResult out."""

import os

# Polars' allocator reads this only at the import of polars. One arena, because each keeps the most that it ever used.
os.environ.setdefault("_RJEM_MALLOC_CONF", "narenas:1")
# Arrow reads this only at the import of pyarrow. Its own allocator keeps memory for its threads, and its writer of
# Parquet uses that one whatever pool pyarrow sets: 30 MiB.
os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
