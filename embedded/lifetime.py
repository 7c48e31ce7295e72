"""How each part of the embedded stack says that it is ready and learns that it is to stop."""

import argparse
import json
import os
import signal
import sys
import threading
from types import FrameType


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a part's command line the option that ties it to the process which started it."""
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="stop when standard input ends, which it does when the process that started this one dies",
    )


class Lifetime:
    """From the moment a part starts until it is told to stop by SIGTERM, SIGINT or the end of its parent.

    Build it in the main thread before anything slow, so that no signal is missed.
    """

    def __init__(self, *, until_stdin_closes: bool) -> None:
        self._over = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told)
        if until_stdin_closes:
            threading.Thread(target=self._outlive_no_parent, daemon=True).start()

    def announce(self, **address: str | int) -> None:
        """Print the one line that says the part serves, and where."""
        sys.stdout.write(json.dumps({"ready": True, **address}) + "\n")
        sys.stdout.flush()

    def wait(self) -> None:
        """Return when the part is to stop."""
        # Without a timeout the wait would not let a signal handler run on every platform.
        while not self._over.wait(1.0):
            pass

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self._over.set()

    def _outlive_no_parent(self) -> None:
        # The raw descriptor: a buffered read would hold a lock that the interpreter wants at exit.
        while os.read(0, 4096):
            pass
        self._over.set()
