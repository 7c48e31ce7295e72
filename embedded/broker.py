"""A Kafka broker that needs no installation besides pip: librdkafka's mock cluster in its own process."""

import argparse

from confluent_kafka import Producer

from embedded.part import Lifetime, add_lifetime_option

START_SECONDS = 10.0


def main() -> None:
    """Serve until stopped.

    A topic is created, with four partitions, when a producer first requests its metadata or writes to it. Requests to
    create or alter topics get no response. A group rebalances one second before the session timeout of a member
    that joined or left, so members should use a short timeout.
    """
    parser = argparse.ArgumentParser(prog="python -m embedded.broker", description=__doc__)
    add_lifetime_option(parser)
    options = parser.parse_args()
    life = Lifetime(until_stdin_closes=options.until_stdin_closes)
    # Log level 3 (errors): the library would warn that bootstrap.servers is replaced, which is intended.
    host = Producer({"test.mock.num.brokers": 1, "log_level": 3})
    brokers = host.list_topics(timeout=START_SECONDS).brokers.values()
    life.announce(bootstrap=",".join(f"{broker.host}:{broker.port}" for broker in brokers))
    life.wait()


if __name__ == "__main__":
    main()
