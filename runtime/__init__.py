"""What both daemons run on: Faust app, HTTP port, database, threads, logs, tracing, migrations."""
