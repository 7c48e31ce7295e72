"""Opens the table that a spec names, and gives its rows as record batches."""

from pipeline.read.open_table import Table, open_table

__all__ = ["Table", "open_table"]
