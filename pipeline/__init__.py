"""Moves data: an ExportSpec in, one finished object and an ExportResult out."""

import os

# Polars' allocator reads this as polars is loaded, and never again: one arena, for each keeps what it once had.
os.environ.setdefault("_RJEM_MALLOC_CONF", "narenas:1")
