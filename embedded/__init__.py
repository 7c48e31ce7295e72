"""Stand-ins that let Waybill run with nothing installed: broker, ClickHouse, mail sink, sample data."""
