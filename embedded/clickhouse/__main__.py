"""Run the server: `python -m embedded.clickhouse --folder DIR`."""

import argparse
import os
import sys
import threading
from pathlib import Path

from embedded import lifetime
from embedded.clickhouse.engine import Engine
from embedded.clickhouse.server import Server


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m embedded.clickhouse", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the data is; made if it is not there")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    lifetime.add_option(parser)
    options = parser.parse_args()
    life = lifetime.Lifetime(until_stdin_closes=options.until_stdin_closes)
    engine = Engine(options.folder)
    server = Server(engine, options.port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host, port = server.server_address[:2]
    life.announce(url=f"http://{host!s}:{port}", version=engine.version)
    life.wait()
    server.shutdown()
    engine.close()
    sys.stdout.flush()
    # Threads of running queries are inside the engine, where a normal exit of the interpreter would wait or crash.
    os._exit(0)


if __name__ == "__main__":
    main()
