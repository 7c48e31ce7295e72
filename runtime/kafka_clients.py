"""Configures confluent-kafka's clients from the settings; imports no Faust, so that commands start quickly."""

from typing import Any

from confluent_kafka import Producer

from config.settings import Misconfigured, Settings
from runtime.kafka_tls import check_files, find_authorities
from runtime.kafka_tokens import open_tokens
from runtime.tokens import Tokens

MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest message that the producer sends; the limit of the topic may be lower."""


def list_servers(settings: Settings) -> str:
    """Return the brokers as Kafka clients expect them: separated by commas. Raises Misconfigured without any."""
    if settings.kafka_bootstrap_servers is None:
        raise Misconfigured(["KAFKA_BOOTSTRAP_SERVERS is missing"])
    return ",".join(each.strip() for each in settings.kafka_bootstrap_servers.split(","))


def check_login(settings: Settings) -> None:
    """Raise Misconfigured if a file or a package that the login to Kafka needs is missing or can't be used."""
    check_files(settings)
    open_tokens(settings)


def client_config(settings: Settings) -> dict[str, Any]:
    """Return the settings that all confluent-kafka clients share: brokers, security and client id.

    Raises Misconfigured if a file of the settings can't be used, and Unavailable if the login needs a token and there
    is none: librdkafka would wait for it, and not say why it does not come. That may take as long as `Tokens.get`.
    """
    config: dict[str, Any] = {
        "bootstrap.servers": list_servers(settings),
        "security.protocol": settings.kafka_security_protocol,
        "client.id": "waybill",
        "log_level": 3,
    }
    return config | _login(settings) | _certificates(settings)


def _login(settings: Settings) -> dict[str, Any]:
    if not settings.kafka_security_protocol.startswith("SASL"):
        return {}
    if (tokens := open_tokens(settings)) is not None:
        tokens.get()
        return {"sasl.mechanism": "OAUTHBEARER", "oauth_cb": lambda _: _give_token(tokens)}
    password = settings.kafka_sasl_password
    return {
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": password.get_secret_value() if password is not None else "",
    }


def _give_token(tokens: Tokens) -> tuple[str, float]:
    """Return a token and its end to librdkafka, in a thread of its own; it asks again after 10 s if this raises."""
    token = tokens.get()
    return token.value, token.expires_at


def _certificates(settings: Settings) -> dict[str, Any]:
    check_files(settings)
    password = settings.kafka_ssl_key_password
    given = {
        "ssl.ca.location": find_authorities(settings),
        "ssl.certificate.location": settings.kafka_ssl_certificate_location,
        "ssl.key.location": settings.kafka_ssl_key_location,
        "ssl.key.password": password.get_secret_value() if password is not None else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def build_producer(settings: Settings) -> Producer:
    """Build an idempotent producer: it keeps the order, its retries make no duplicates, and it gives up after 10 s.

    Raises what `client_config` does.
    """
    return Producer(
        client_config(settings)
        | {
            "acks": "all",
            "enable.idempotence": True,
            "message.max.bytes": MESSAGE_BYTES,
            "delivery.timeout.ms": 10_000,
            "linger.ms": 5,
        }
    )
