"""Moves data: an ExportSpec in, one finished object and an ExportResult out."""
