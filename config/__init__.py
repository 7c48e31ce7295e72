"""Declarations that run nothing: settings, events, tables, metrics and their labels, links, errors."""
