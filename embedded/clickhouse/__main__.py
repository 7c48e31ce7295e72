"""Run the server: `python -m embedded.clickhouse --folder DIR`."""

import argparse
import os
import sys
import threading
from pathlib import Path

from embedded.clickhouse.engine import Engine
from embedded.clickhouse.server import ClickHouseServer
from embedded.part import Lifetime, add_lifetime_option


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(prog="python -m embedded.clickhouse", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the folder for data; created if missing")
    parser.add_argument("--port", type=int, default=0, help="0, the default, picks a free port")
    add_lifetime_option(parser)
    options = parser.parse_args()
    life = Lifetime(until_stdin_closes=options.until_stdin_closes)
    engine = Engine(options.folder)
    server = ClickHouseServer(engine, options.port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host, port = server.server_address[:2]
    life.announce(url=f"http://{host!s}:{port}", version=engine.version)
    life.wait()
    server.shutdown()
    engine.close()
    sys.stdout.flush()
    # Threads of running queries are inside the engine; a normal exit of the interpreter would wait for them or crash.
    os._exit(0)


if __name__ == "__main__":
    main()
