"""Turns a stored query into statements."""
