"""Adds columns to batches from other tables: one query for each batch, never one for each row."""
