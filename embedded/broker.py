"""A Kafka broker that pip alone installs: librdkafka's mock cluster, in a process of its own."""

import argparse

from confluent_kafka import Producer

from embedded import lifetime

START_SECONDS = 10.0


def main() -> None:
    """Serve until told to stop.

    Topics come into being, with four partitions, when a producer first asks for them or writes to them; requests
    to create or alter topics are not answered. A group that a member has joined or left forms anew one second
    before its session timeout is over, so members should ask for a short one.
    """
    parser = argparse.ArgumentParser(prog="python -m embedded.broker", description=__doc__)
    lifetime.add_option(parser)
    options = parser.parse_args()
    life = lifetime.Lifetime(until_stdin_closes=options.until_stdin_closes)
    # Errors only: the library warns on standard error that bootstrap.servers is replaced, as intended.
    host = Producer({"test.mock.num.brokers": 1, "log_level": 3})
    brokers = host.list_topics(timeout=START_SECONDS).brokers.values()
    life.announce(bootstrap=",".join(f"{broker.host}:{broker.port}" for broker in brokers))
    life.wait()


if __name__ == "__main__":
    main()
