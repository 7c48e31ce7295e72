"""Asks the brokers about topics, and says why they do not answer."""

from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from config.settings import Settings
from runtime.kafka_clients import client_config

T = TypeVar("T")

CHECK_SECONDS = 5.0

# The most telling first: a client reports several.
_CONNECTION_FAULTS = {
    KafkaError._AUTHENTICATION: (  # noqa: SLF001 (librdkafka's own codes have such names)
        "the brokers reject the login: are KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD right?"
    ),
    KafkaError._SSL: (  # noqa: SLF001 (the same)
        "TLS failed: are KAFKA_SECURITY_PROTOCOL and KAFKA_SSL_CA_LOCATION right?"
    ),
    KafkaError._RESOLVE: (  # noqa: SLF001 (the same)
        "a host name can't be resolved: is KAFKA_BOOTSTRAP_SERVERS right, and are the advertised listeners?"
    ),
    KafkaError._TRANSPORT: (  # noqa: SLF001 (the same)
        "connection refused or closed: are KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL right, and are the "
        "brokers running?"
    ),
    KafkaError._TIMED_OUT: (  # noqa: SLF001 (the same)
        "timeout: is KAFKA_BOOTSTRAP_SERVERS right, and may this host connect to every broker?"
    ),
}


class KafkaAdmin:
    """An admin client that writes nothing to stderr, where librdkafka would log each refused connection."""

    def __init__(self, settings: Settings) -> None:
        self._reported: set[int] = set()
        quiet = {"log_level": 0, "error_cb": lambda error: self._reported.add(error.code())}
        self._client = AdminClient(client_config(settings) | quiet)

    def ask(self, call: Callable[[AdminClient], T]) -> T:
        """Return what `call` returns; raises ConnectionError with cause and remedy if no broker answers it."""
        try:
            return call(self._client)
        except KafkaException as error:
            self._client.poll(0)  # runs error_cb
            codes = {*self._reported, error.args[0].code()}
            reason = next((text for code, text in _CONNECTION_FAULTS.items() if code in codes), error.args[0].str())
            raise ConnectionError(f"Kafka does not answer: {reason}") from error


def check_topics(settings: Settings, *topics: str) -> None:
    """Check that each topic exists; raises ConnectionError, whose text says what is wrong and what to do."""
    admin = KafkaAdmin(settings)
    for topic in topics:
        if (problem := find_topic_problem(admin, topic)) is not None:
            raise ConnectionError(problem)


def find_topic_problem(admin: KafkaAdmin, topic: str) -> str | None:
    """Return why a topic can't be used, and the remedy; raises ConnectionError if no broker answers."""
    found = admin.ask(lambda client: client.list_topics(topic=topic, timeout=CHECK_SECONDS))
    error = found.topics[topic].error
    if error is None:
        return None
    match error.code():
        case KafkaError.UNKNOWN_TOPIC_OR_PART:
            return f"topic {topic} is missing: run `waybill topics`"
        case KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return f"the Kafka user may not see topic {topic}: add an ACL that allows it READ and WRITE there"
        case KafkaError.LEADER_NOT_AVAILABLE:
            return f"topic {topic} has no leader: is a broker down?"
    return f"topic {topic} can't be used: {error.str()}"
