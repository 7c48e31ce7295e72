"""What the processes of the embedded stack share: required packages, announcing readiness, stopping."""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def required_packages() -> Iterator[None]:
    """Exit with an installation hint if an import in the block fails."""
    try:
        yield
    except ImportError as error:
        raise SystemExit(
            f"The embedded stack requires the package {error.name!r}, which is not installed. "
            "Install Waybill with the extra: run pip install '.[embedded]' in the repository"
        ) from error


def add_lifetime_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that stops a part together with the process that started it."""
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="stop when standard input closes, which happens when the parent process ends",
    )


class Lifetime:
    """The time until SIGTERM, SIGINT or the end of the parent process.

    Create it in the main thread before anything slow, so that no signal is missed.
    """

    def __init__(self, *, until_stdin_closes: bool) -> None:
        self._stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if until_stdin_closes:
            threading.Thread(target=self._stop_with_parent, daemon=True).start()

    def announce(self, **address: str | int) -> None:
        """Print one JSON line with the address, once the part is ready."""
        sys.stdout.write(json.dumps({"ready": True, **address}) + "\n")
        sys.stdout.flush()

    def wait(self) -> None:
        """Wait until the part must stop."""
        # On some platforms, a wait without a timeout blocks signal handlers.
        while not self._stopped.wait(1.0):
            pass

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopped.set()

    def _stop_with_parent(self) -> None:
        # A buffered read would hold a lock that the interpreter needs at exit.
        while os.read(0, 4096):
            pass
        self._stopped.set()
