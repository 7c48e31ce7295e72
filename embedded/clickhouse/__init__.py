"""ClickHouse's HTTP interface on chDB, the engine as a library: for development, the demo and tests."""
