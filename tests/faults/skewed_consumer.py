"""Launches the consumer on a machine whose clock is wrong by as many seconds as the first argument says."""

import sys
from datetime import datetime, timedelta, tzinfo

import consumer.clock
from cli.run_consumer import run_consumer


def main(seconds: float) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override] # a plain one will do
            return datetime.now(tz) + timedelta(seconds=seconds)

    consumer.clock.datetime = Wrong  # type: ignore[attr-defined] # that is what this launcher is for
    run_consumer()


if __name__ == "__main__":
    main(float(sys.argv[1]))
