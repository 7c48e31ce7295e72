"""SQL expressions that know no table declaration."""
