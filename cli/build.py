"""Builds and joins the parts from the settings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import clickhouse_connect
from aiohttp import web
from sqlalchemy import Engine, inspect

from config.labels import PartOutcome
from config.links import read_links
from config.metrics import Metrics
from config.settings import Misconfigured, Settings
from config.tables import application, waybill
from consumer.downloads.app import Downloads
from consumer.jobs import Jobs, Terms
from notify import smtp
from notify.deliver import read_transport
from pipeline.read.connections import ClickHouse, Sources
from pipeline.storage import S3Options, Storage, open_storage
from runtime.database import open_database
from runtime.kafka import build_producer, check_topics
from runtime.publisher import Publisher

CHECK_SECONDS = 10
Check = Callable[[], None]


class Unused(Exception):
    """A dependency is not set up, and need not be; the text says what there is not without it."""


def engine(settings: Settings) -> Engine:
    """Open the application's database; needs DATABASE_URL."""
    return open_database(settings.database)


def clickhouse(settings: Settings) -> ClickHouse:
    """Say where ClickHouse is read: the read-only URL where there is one; needs CLICKHOUSE_URL."""
    url = settings.clickhouse_read_only_url or settings.clickhouse_url
    if url is None:
        raise Misconfigured(["CLICKHOUSE_URL is missing"])
    return ClickHouse(
        url=url,
        user=settings.clickhouse_user,
        password=settings.clickhouse_password.get_secret_value(),
        database=settings.clickhouse_db,
    )


def sources(settings: Settings, database: Engine) -> Sources:
    """Join the two databases that exports read."""
    return Sources(clickhouse=clickhouse(settings), database=database)


def storage(settings: Settings, on_part: Callable[[PartOutcome], None] = lambda _outcome: None) -> Storage:
    """Open the store of the finished files; needs a bucket or WAYBILL_STORAGE_URL."""
    secret = settings.secret_access_key
    options = S3Options(
        endpoint=settings.endpoint,
        external_endpoint=settings.external_endpoint,
        region=settings.region,
        access_key_id=settings.access_key_id,
        secret_access_key=secret.get_secret_value() if secret is not None else None,
        force_path_style=settings.force_path_style,
        sse=settings.sse,
        sse_kms_key_id=settings.sse_kms_key_id,
        part_size=settings.part_size_mib << 20,
    )
    return open_storage(settings.destination, options, on_part)


def jobs(settings: Settings) -> Jobs:
    """Open the job store; needs DATABASE_URL."""
    terms = Terms(
        lease=timedelta(seconds=settings.lease_seconds),
        project_slots=settings.project_slots,
        completions_topic=settings.completions_topic,
    )
    return Jobs(engine(settings), terms)


def downloads(settings: Settings, jobs: Jobs, storage: Storage, metrics: Metrics) -> tuple[web.RouteDef, ...]:
    """Make the routes of the download links; there are none without WAYBILL_PUBLIC_URL."""
    links = read_links(settings)
    if links is None:
        return ()
    clock, proxies = partial(datetime.now, UTC), settings.trusted_proxies
    return Downloads(links, jobs, storage, metrics, now=clock, trusted_proxies=proxies).routes()


def publisher(settings: Settings) -> Publisher:
    """Make a producer for events; connects when first used."""
    return Publisher(lambda: build_producer(settings))


def checks(settings: Settings, database: Engine) -> dict[str, Check]:
    """Name every dependency with a call that raises, in words, when it can't be used."""
    return {
        "database": lambda: _check_database(database),
        "clickhouse": lambda: _check_clickhouse(settings),
        "storage": lambda: storage(settings).check(),
        "kafka": lambda: check_topics(
            settings, settings.requests_topic, settings.completions_topic, settings.dead_letter_topic
        ),
        "mail": lambda: _check_mail(settings),
    }


@contextmanager
def clickhouse_client(settings: Settings) -> Iterator[Any]:
    """Give a plain client for commands, on the writable URL, its database created if need be."""
    where = clickhouse(settings.model_copy(update={"clickhouse_read_only_url": None}))
    with clickhouse_connect.get_client(dsn=where.url, username=where.user, password=where.password) as client:
        client.command("CREATE DATABASE IF NOT EXISTS {name:Identifier}", parameters={"name": where.database})
        client.database = where.database
        yield client


def _check_database(database: Engine) -> None:
    there = set(inspect(database).get_table_names())
    for table in (*application.tables.values(), *waybill.tables.values()):
        if table.name in {"batch_exports", "users"} and table.name not in there:
            raise LookupError(
                f"the application's table {table.name} is missing: is DATABASE_URL the application's database?"
            )
        if table.metadata is waybill and table.name not in there:
            raise LookupError(f"our table {table.name} is missing: run `waybill migrate`")


def _check_clickhouse(settings: Settings) -> None:
    where = clickhouse(settings)
    client = clickhouse_connect.get_client(
        dsn=where.url,
        username=where.user,
        password=where.password,
        database=where.database,
        connect_timeout=CHECK_SECONDS,
        send_receive_timeout=CHECK_SECONDS,
    )
    with client:
        there = {row[0] for row in client.query("SHOW TABLES").result_rows}
    if "traces" not in there and "events_full" not in there:
        raise LookupError(f"database {where.database} has neither traces nor events_full: is CLICKHOUSE_DB right?")


def _check_mail(settings: Settings) -> None:
    if settings.email_from_address is None and settings.smtp_connection_url is None:
        raise Unused("EMAIL_FROM_ADDRESS and SMTP_CONNECTION_URL are not set: nobody will be mailed")
    transport = read_transport(settings)
    if transport is None:
        raise LookupError("EMAIL_FROM_ADDRESS or SMTP_CONNECTION_URL is not set: nobody will be mailed")
    smtp.check(transport.server)
