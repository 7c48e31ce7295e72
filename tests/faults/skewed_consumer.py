"""Launches the consumer with a clock that is wrong by the seconds given as the first argument."""

import sys
from datetime import datetime, timedelta, tzinfo

import consumer.clock
from cli.daemons import run_consumer


def main(seconds: float) -> None:
    class SkewedClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override] # a plain datetime will do
            return datetime.now(tz) + timedelta(seconds=seconds)

    consumer.clock.datetime = SkewedClock  # type: ignore[attr-defined] # replaced on purpose
    run_consumer()


if __name__ == "__main__":
    main(float(sys.argv[1]))
