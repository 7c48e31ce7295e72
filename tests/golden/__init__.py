"""The golden files of exports of a few seeded rows, and the program that writes them from the oracle."""
