"""Compiles a spec into statements, against the declaration of its table."""
