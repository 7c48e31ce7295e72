"""Asks the brokers about topics, and says why they do not answer."""

from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from config.errors import Unavailable
from config.settings import Settings
from config.settings_kafka import AWS_MSK_IAM, OAUTHBEARER
from runtime.kafka_clients import client_config

T = TypeVar("T")

CHECK_SECONDS = 5.0

# The most telling first: a client reports several.
_CONNECTION_FAULTS = {
    KafkaError._AUTHENTICATION: "the brokers reject the login: {login}",  # noqa: SLF001 (librdkafka's own codes have such names)
    KafkaError._SSL: "TLS failed: is KAFKA_SECURITY_PROTOCOL right{certificate}?",  # noqa: SLF001 (the same)
    KafkaError._RESOLVE: (  # noqa: SLF001 (the same)
        "a host name can't be resolved: is KAFKA_BOOTSTRAP_SERVERS right, and are the advertised listeners?"
    ),
    KafkaError._TRANSPORT: (  # noqa: SLF001 (the same)
        "connection refused or closed: are KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL right{certificate}, and "
        "are the brokers running?"
    ),
    KafkaError._TIMED_OUT: (  # noqa: SLF001 (the same)
        "timeout: is KAFKA_BOOTSTRAP_SERVERS right, and may this host connect to every broker?"
    ),
}
_LOGINS = {
    OAUTHBEARER: (
        "do they trust the issuer behind KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL, and are scope and audience of its "
        "tokens those that they expect?"
    ),
    AWS_MSK_IAM: "may the role of this process do kafka-cluster:Connect, and is KAFKA_SASL_AWS_REGION right?",
}
_PASSWORD_LOGIN = "are KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD right?"  # noqa: S105 (a question)


_UNTRUSTED = (
    "the certificate is not trusted: is its certificate authority in the file that SSL_CERT_FILE or, if it is set, "
    "KAFKA_SSL_CA_LOCATION names, and are the brokers' host names in it?"
)


class KafkaAdmin:
    """An admin client that writes nothing to stderr, where librdkafka would log each refused connection."""

    def __init__(self, settings: Settings) -> None:
        """Build the client; raises ConnectionError if there is no token for its login."""
        try:
            config = client_config(settings)
        except Unavailable as error:
            raise ConnectionError(f"there is no token for Kafka: {error}") from error
        self._settings = settings
        self._reported: dict[int, str] = {}
        quiet = {"log_level": 0, "error_cb": lambda error: self._reported.update({error.code(): error.str()})}
        self._client = AdminClient(config | quiet)

    def ask(self, call: Callable[[AdminClient], T]) -> T:
        """Return what `call` returns; raises ConnectionError with cause and remedy if no broker answers it."""
        try:
            return call(self._client)
        except KafkaException as error:
            raise ConnectionError(f"Kafka does not answer: {self.explain(error)}") from error

    def explain(self, error: KafkaException) -> str:
        """Return the reason of an error, for a connection that failed with what to look at."""
        self._client.poll(0)  # runs error_cb
        failed = error.args[0]
        if failed.code() <= 0 and any("certificate verify failed" in text for text in self._reported.values()):
            return _UNTRUSTED
        # The brokers' own codes are positive, and need no other explanation.
        codes = {failed.code()} if failed.code() > 0 else {*self._reported, failed.code()}
        reason = next((text for code, text in _CONNECTION_FAULTS.items() if code in codes), None)
        return reason.format(**self._name_suspects()) if reason is not None else str(failed.str())

    def _name_suspects(self) -> dict[str, str]:
        """Return what to look at, which depends on how the client logs in."""
        settings, certificate = self._settings, ""
        if settings.kafka_ssl_certificate_location is not None:
            certificate = ", do the brokers trust the certificate of KAFKA_SSL_CERTIFICATE_LOCATION"
        elif settings.kafka_security_protocol == "SSL":
            certificate = ", must KAFKA_SSL_CERTIFICATE_LOCATION name a certificate of this client"
        return {"login": _LOGINS.get(settings.kafka_sasl_mechanism, _PASSWORD_LOGIN), "certificate": certificate}


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
