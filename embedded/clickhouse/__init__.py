"""ClickHouse's HTTP interface over chDB, the engine as a library: for development, the demo and tests."""
