"""Builds Kafka clients from the settings: a Faust app for a consumer group, and a producer."""

import ssl
from pathlib import Path
from typing import Any

import faust
from confluent_kafka import Producer
from faust.app.base import BootStrategy

from config.settings import Misconfigured, Settings
from runtime import kafka_records

SESSION_SECONDS = 10.0
"""A member without heartbeats for this long loses its partitions; heartbeats are sent from their own thread."""

STATIC_SESSION_SECONDS = 60.0
"""The same for a member with a static id: longer than a restart takes, so that a restart moves no partitions."""

REBALANCE_SECONDS = 15.0
"""How long the group waits for a member to rejoin; members rejoin immediately, without finishing work first."""

POLL_SECONDS = 24 * 3600.0
"""How long an event may wait for a slot before the group removes the member."""

MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest message that the producer sends; the limit of the topic may be lower."""


class _ConsumerOnly(BootStrategy):
    """Faust without its producer, because runtime/publisher.py reports the delivery of each message."""

    enable_kafka_producer = False


def client_config(settings: Settings) -> dict[str, Any]:
    """Return the settings that all confluent-kafka clients share: brokers, security and client id."""
    config: dict[str, Any] = {
        "bootstrap.servers": _servers(settings),
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


def build_app(settings: Settings, *, group: str, datadir: Path) -> faust.App:
    """Build a Faust app that consumes raw bytes as a member of `group`; the caller starts and stops it.

    `datadir` is a folder that Faust may write to. An event may wait for hours: rebalances do not wait for it, and the
    poll interval is longer. Records that can't be decoded arrive as kafka_records.Unreadable.
    """
    kafka_records.install()
    app = faust.App(
        group,
        broker=[f"kafka://{server}" for server in _servers(settings).split(",")],
        broker_credentials=_credentials(settings),
        broker_client_id="waybill",
        broker_session_timeout=STATIC_SESSION_SECONDS if settings.kafka_member_id else SESSION_SECONDS,
        broker_heartbeat_interval=3.0,
        broker_rebalance_timeout=REBALANCE_SECONDS,
        broker_max_poll_interval=POLL_SECONDS,
        broker_commit_every=1,
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=settings.kafka_member_id,
        stream_wait_empty=False,
        stream_processing_timeout=POLL_SECONDS,
        broker_commit_livelock_soft_timeout=POLL_SECONDS,
        topic_allow_declare=False,
        topic_disable_leader=True,
        key_serializer="raw",
        value_serializer="raw",
        autodiscover=False,
        web_enabled=False,
        datadir=str(datadir),
        loghandlers=[],
        logging_config=None,
        table_standby_replicas=0,
    )
    app.boot_strategy = _ConsumerOnly(app)
    return app


def raw_topic(app: faust.App, name: str) -> Any:
    """Return a topic of `app` whose keys and values are raw bytes, so that decoding can't fail."""
    return app.topic(name, key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw")


def read_headers(message: Any) -> tuple[tuple[str, bytes | None], ...]:
    """Return the headers of a message that Faust received, in their order."""
    headers = message.headers.items() if isinstance(message.headers, dict) else message.headers or ()
    return tuple((name, value) for name, value in headers)


def _servers(settings: Settings) -> str:
    if settings.kafka_bootstrap_servers is None:
        raise Misconfigured(["KAFKA_BOOTSTRAP_SERVERS is missing"])
    return ",".join(each.strip() for each in settings.kafka_bootstrap_servers.split(","))


def _credentials(settings: Settings) -> Any:
    context = None
    if settings.kafka_security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.kafka_ssl_ca_location)
    if settings.kafka_security_protocol.startswith("SASL"):
        password = settings.kafka_sasl_password
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=password.get_secret_value() if password is not None else "",
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None
