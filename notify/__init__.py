"""Notifies: one email per finished export, once."""
