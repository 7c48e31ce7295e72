"""The `waybill` command, and the only place where objects are built and wired."""
