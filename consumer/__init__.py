"""Decides: guards, claims, runs and settles exports."""
