"""Configures confluent-kafka's clients from the settings; imports no Faust, so that commands start quickly."""

from typing import Any

from confluent_kafka import Producer

from config.settings import Misconfigured, Settings

MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest message that the producer sends; the limit of the topic may be lower."""


def list_servers(settings: Settings) -> str:
    """Return the brokers as Kafka clients expect them: separated by commas. Raises Misconfigured without any."""
    if settings.kafka_bootstrap_servers is None:
        raise Misconfigured(["KAFKA_BOOTSTRAP_SERVERS is missing"])
    return ",".join(each.strip() for each in settings.kafka_bootstrap_servers.split(","))


def client_config(settings: Settings) -> dict[str, Any]:
    """Return the settings that all confluent-kafka clients share: brokers, security and client id."""
    config: dict[str, Any] = {
        "bootstrap.servers": list_servers(settings),
        "security.protocol": settings.kafka_security_protocol,
        "client.id": "waybill",
        "log_level": 3,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        password = settings.kafka_sasl_password
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_sasl_username
        config["sasl.password"] = password.get_secret_value() if password is not None else ""
    if settings.kafka_ssl_ca_location is not None:
        config["ssl.ca.location"] = settings.kafka_ssl_ca_location
    return config


def build_producer(settings: Settings) -> Producer:
    """Build an idempotent producer: it keeps the order, its retries make no duplicates, and it gives up after 10 s."""
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
