"""Holds the files that exports of a small seeded world must be, byte for byte, and writes them from the oracle."""
