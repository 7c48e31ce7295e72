"""Tells: one message per finished export, once."""
