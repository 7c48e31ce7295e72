"""Notifies: one message per finished export and channel, once."""
