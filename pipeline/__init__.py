"""Moves the data: an ExportSpec in, one finished object and an ExportResult out."""

import os

# Polars' allocator reads this only at the import of polars. One arena, because each keeps the most that it ever used.
os.environ.setdefault("_RJEM_MALLOC_CONF", "narenas:1")
