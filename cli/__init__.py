"""Starts: the waybill command, the only place where things are built and joined."""
