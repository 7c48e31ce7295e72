"""Declares what is so before anything runs: settings, events and topics, tables, metrics, logging, Kafka."""
