"""Tries everything that Waybill needs from its dependencies, and says what is missing and how to grant it."""
