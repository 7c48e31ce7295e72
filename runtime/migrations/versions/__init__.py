"""Holds the revisions, oldest first."""
