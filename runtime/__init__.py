"""Code that both daemons share: Faust app, HTTP port, database, threads, retry, logs, tracing, migrations."""
