"""Builds a Faust app for a consumer group from the settings."""

from pathlib import Path
from typing import Any

import faust
from aiokafka.abc import AbstractTokenProvider
from faust.app.base import BootStrategy
from faust.auth import OAuthCredentials

from config.errors import Unavailable
from config.settings import Settings
from runtime import kafka_records
from runtime.kafka_clients import list_servers
from runtime.kafka_tls import build_context
from runtime.kafka_tokens import open_tokens
from runtime.threads import in_thread
from runtime.tokens import Tokens

SESSION_SECONDS = 10.0
"""A member without heartbeats for this long loses its partitions; heartbeats are sent from their own thread."""

STATIC_SESSION_SECONDS = 60.0
"""The same for a member with a static id: longer than a restart takes, so that a restart moves no partitions."""

REBALANCE_SECONDS = 15.0
"""How long the group waits for a member to rejoin; members rejoin immediately, without finishing work first."""

POLL_SECONDS = 24 * 3600.0
"""How long an event may wait for a slot before the group removes the member."""


class _ConsumerOnly(BootStrategy):
    """Faust without its producer, because runtime/publisher.py reports the delivery of each message."""

    enable_kafka_producer = False


def build_app(settings: Settings, *, group: str, datadir: Path) -> faust.App:
    """Build a Faust app that consumes raw bytes as a member of `group`; the caller starts and stops it.

    `datadir` is a folder that Faust may write to. An event may wait for hours: rebalances do not wait for it, and the
    poll interval is longer. Records that can't be decoded arrive as kafka_records.Unreadable.
    """
    kafka_records.install()
    app = faust.App(
        group,
        broker=[f"kafka://{server}" for server in list_servers(settings).split(",")],
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


class _TokenProvider(AbstractTokenProvider):  # type: ignore[misc] # aiokafka requires the class, and has no types
    """Gives aiokafka a token for each new connection, without blocking the event loop."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def token(self) -> str:
        """Return a token; raises ConnectionError, after which aiokafka connects again."""
        try:
            return (await in_thread(self._tokens.get)).value
        except Unavailable as error:
            raise ConnectionError(str(error)) from error


def _credentials(settings: Settings) -> Any:
    context = build_context(settings) if settings.kafka_security_protocol.endswith("SSL") else None
    if not settings.kafka_security_protocol.startswith("SASL"):
        return faust.SSLCredentials(context) if context is not None else None
    if (tokens := open_tokens(settings)) is not None:
        return OAuthCredentials(oauth_cb=_TokenProvider(tokens), ssl_context=context)
    password = settings.kafka_sasl_password
    return faust.SASLCredentials(
        username=settings.kafka_sasl_username,
        password=password.get_secret_value() if password is not None else "",
        mechanism=settings.kafka_sasl_mechanism,
        ssl_context=context,
    )
