"""Launches `consumer` or `notify`, the first argument, with a clock that is wrong by the seconds of the second one."""

import sys
from datetime import datetime, timedelta, tzinfo

import runtime.clock
from cli.daemons import run_consumer, run_notify

DAEMONS = {"consumer": run_consumer, "notify": run_notify}


def main(name: str, seconds: float) -> None:
    class SkewedClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override] # a plain datetime will do
            return datetime.now(tz) + timedelta(seconds=seconds)

    runtime.clock.datetime = SkewedClock  # type: ignore[attr-defined] # replaced on purpose
    DAEMONS[name]()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
