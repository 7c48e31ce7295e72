"""Builds and wires every object from the settings; imports come late, so that each command loads only what it uses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, inspect

from config.labels import PartOutcome
from config.links import read_links
from config.metrics import Metrics
from config.settings import Misconfigured, Settings
from config.tables import langfuse, waybill
from config.urls import split_clickhouse
from runtime.database import open_database, reading, schema_of
from runtime.kafka_admin import check_topics
from runtime.kafka_clients import build_producer
from runtime.publisher import Publisher
from runtime.tracing import open_tracer

if TYPE_CHECKING:
    from aiohttp import web

    from consumer.app import Dependencies
    from consumer.job_store import Jobs
    from notify.deliver import NotifierContext
    from pipeline.read.connections import ClickHouse, Sources, Tuning
    from pipeline.storage import AzureOptions, GoogleOptions, S3Options, Storage
    from runtime.http import Health

CHECK_SECONDS = 10
DEAD_LETTERS = 20
"""How many dead letters the operators' page shows."""

Check = Callable[[], None]


def consumer_parts(settings: Settings, metrics: Metrics) -> "Dependencies":
    """Build all that the consumer daemon runs on."""
    from consumer.app import Dependencies
    from pipeline.export import export

    store = storage(settings, lambda outcome: metrics.upload_parts.labels(outcome).inc())
    job_store = jobs(settings)
    tried = checks(settings, job_store.engine) | {"storage": lambda: store.check(settings.prefix)}
    events = publisher(settings)
    return Dependencies(
        jobs=job_store,
        sources=sources(settings, job_store.engine),
        storage=store,
        publisher=events,
        metrics=metrics,
        export=export,
        checks={name: tried[name] for name in ("database", "clickhouse", "storage", "kafka")},
        tracer=open_tracer(settings.otel_endpoint, "waybill-consumer"),
        link_routes=download_routes(settings, job_store, store, metrics),
        operator_routes=partial(operator_routes, settings, job_store, events),
    )


def notifier_context(settings: Settings) -> "NotifierContext":
    """Build all that the notifier daemon runs on."""
    from notify.deliver import NotifierContext, read_transport
    from notify.notices import Notices
    from notify.open_channels import list_channels, open_slack, open_webhook

    database = engine(settings)
    notices = Notices(
        database,
        retry_for=timedelta(hours=settings.notice_hours),
        first_delay=timedelta(seconds=settings.retry_base_seconds),
        lease=timedelta(seconds=settings.lease_seconds),
        channels=list_channels(settings),
    )
    return NotifierContext(
        engine=database,
        notices=notices,
        transport=read_transport(settings),
        nextauth_url=settings.nextauth_url,
        links=read_links(settings),
        tracer=open_tracer(settings.otel_endpoint, "waybill-notify"),
        webhook=open_webhook(settings),
        slack=open_slack(settings),
    )


def engine(settings: Settings) -> Engine:
    """Open the Langfuse database; needs DATABASE_URL."""
    address = settings.database_address
    return open_database(address.url, address.schema, address.pool)


def clickhouse(settings: Settings) -> "ClickHouse":
    """Describe the connection to ClickHouse, by the read-only URL if it is set; needs CLICKHOUSE_URL."""
    return _clickhouse(settings, settings.clickhouse_read_only_url or settings.clickhouse_url)


def _clickhouse(settings: Settings, url: str | None) -> "ClickHouse":
    from pipeline.read.connections import ClickHouse

    if url is None:
        raise Misconfigured(["CLICKHOUSE_URL is missing"])
    parts = split_clickhouse(url)
    return ClickHouse(
        url=parts.address,
        user=parts.user or settings.clickhouse_user,
        password=parts.password or settings.clickhouse_password.get_secret_value(),
        database=parts.database or settings.clickhouse_db,
        tuning=_tuning(settings),
    )


def clickhouse_of_events(settings: Settings) -> "ClickHouse | None":
    """Describe the connection for tables that are made of events; None if they are read like all others."""
    url = settings.clickhouse_events_read_only_url
    return _clickhouse(settings, url) if url is not None else None


def _tuning(settings: Settings) -> "Tuning":
    from pipeline.read.clickhouse_settings import Switch
    from pipeline.read.connections import Tuning

    # The settings say what is disabled.
    switches = {"auto": Switch.AUTO, "true": Switch.OFF, "false": Switch.ON}
    cache = settings.clickhouse_use_query_condition_cache
    return Tuning(
        lazy_materialization=switches[settings.clickhouse_disable_lazy_materialization],
        top_k_through_join=switches[settings.clickhouse_disable_top_k_through_join],
        group_by_bytes=settings.clickhouse_max_bytes_before_external_group_by,
        condition_cache=None if cache is None else cache == "true",
    )


def sources(settings: Settings, database: Engine) -> "Sources":
    """Build the sources that exports read from."""
    from pipeline.read.connections import Sources

    return Sources(clickhouse=clickhouse(settings), database=database, events=clickhouse_of_events(settings))


def storage(settings: Settings, on_part: Callable[[PartOutcome], None] = lambda _outcome: None) -> "Storage":
    """Open the storage of the finished files; raises Misconfigured if the settings name none that can be opened."""
    from pipeline.storage import open_storage

    try:
        return open_storage(settings.destination, _storage_options(settings), on_part)
    except ValueError as error:
        raise Misconfigured([str(error)]) from error


def _storage_options(settings: Settings) -> "S3Options | AzureOptions | GoogleOptions":
    from pipeline.storage import AzureOptions, GoogleOptions, PartOptions, S3Options
    from pipeline.storage.options import AZURE_SCHEMES, GOOGLE_SCHEMES

    secret = settings.secret_access_key.get_secret_value() if settings.secret_access_key is not None else None
    scheme, size = settings.destination.partition(":")[0], int(settings.part_size_mib * (1 << 20))
    parts = PartOptions(size=size, in_flight=settings.parts_in_flight, attempts=settings.part_attempts)
    if scheme in AZURE_SCHEMES:
        return AzureOptions(
            endpoint=settings.endpoint,
            external_endpoint=settings.external_endpoint,
            account=settings.access_key_id,
            key=secret,
            create_container=settings.azure_skip_container_check == "false",
            parts=parts,
        )
    if scheme in GOOGLE_SCHEMES:
        credentials = settings.google_credentials
        return GoogleOptions(
            endpoint=settings.endpoint,
            external_endpoint=settings.external_endpoint,
            credentials=credentials.get_secret_value() if credentials is not None else None,
            parts=parts,
        )
    return S3Options(
        endpoint=settings.endpoint,
        external_endpoint=settings.external_endpoint,
        region=settings.region,
        access_key_id=settings.access_key_id,
        secret_access_key=secret,
        force_path_style=settings.force_path_style,
        sse=settings.sse,
        sse_kms_key_id=settings.sse_kms_key_id,
        part_size=size,
        part_attempts=settings.part_attempts,
        parts_in_flight=settings.parts_in_flight,
    )


def jobs(settings: Settings) -> "Jobs":
    """Open the job store; needs DATABASE_URL."""
    from consumer.job_store import ClaimPolicy, Jobs

    policy = ClaimPolicy(
        lease=timedelta(seconds=settings.lease_seconds),
        project_slots=settings.project_slots,
        completions_topic=settings.completions_topic,
    )
    return Jobs(engine(settings), policy)


def download_routes(
    settings: Settings, jobs: "Jobs", storage: "Storage", metrics: Metrics
) -> "tuple[web.RouteDef, ...]":
    """Build the routes of the download links; without WAYBILL_PUBLIC_URL there are none."""
    from consumer.downloads.app import DownloadOptions, Downloads

    links = read_links(settings)
    if links is None:
        return ()
    options = DownloadOptions(trusted_proxies=settings.trusted_proxies, langfuse_url=settings.nextauth_url)
    return Downloads(links, jobs, storage, metrics, now=partial(datetime.now, UTC), options=options).routes()


def operator_routes(
    settings: Settings, jobs: "Jobs", publisher: Publisher, health: "Health"
) -> "tuple[web.RouteDef, ...]":
    """Build the routes of the operators' page and its API."""
    from consumer.operators.app import Operators, OperatorsContext
    from runtime.dead_letters import read_latest

    context = OperatorsContext(
        jobs=jobs,
        publisher=publisher,
        requests_topic=settings.requests_topic,
        read_dead_letters=partial(read_latest, settings, DEAD_LETTERS),
        now=partial(datetime.now, UTC),
        version=version("waybill"),
        token=settings.operator_token,
    )
    return Operators(context, health).routes()


def publisher(settings: Settings) -> Publisher:
    """Build the publisher of events; it connects when it is first used."""
    return Publisher(lambda: build_producer(settings))


def checks(settings: Settings, database: Engine) -> dict[str, Check]:
    """Return a check for every dependency, which raises with the reason when the dependency can't be used."""
    topics = (settings.requests_topic, settings.completions_topic, settings.dead_letter_topic)
    return {
        "database": lambda: _check_database(database),
        "clickhouse": lambda: _check_clickhouse(settings),
        "storage": lambda: storage(settings).check(settings.prefix),
        "kafka": lambda: check_topics(settings, *topics),
    }


@contextmanager
def clickhouse_client(settings: Settings) -> Iterator[Any]:
    """Open a client on the writable URL, for commands, and create its database if it is missing."""
    from pipeline.read.connect import connect

    source = _clickhouse(settings, settings.clickhouse_url)
    with connect(replace(source, database="")) as client:
        client.command("CREATE DATABASE IF NOT EXISTS {name:Identifier}", parameters={"name": source.database})
        client.database = source.database
        yield client


def _check_database(database: Engine) -> None:
    with reading(database) as connection:
        existing = set(inspect(connection).get_table_names(schema_of(database)))
    for table in (*langfuse.tables.values(), *waybill.tables.values()):
        if table.name in {"batch_exports", "users"} and table.name not in existing:
            raise LookupError(
                f"Langfuse's table {table.name} is missing: is DATABASE_URL the URL of the Langfuse database?"
            )
        if table.metadata is waybill and table.name not in existing:
            raise LookupError(f"Waybill's table {table.name} is missing: run `waybill migrate`")


def _check_clickhouse(settings: Settings) -> None:
    from pipeline.read.connect import list_tables

    for source in (clickhouse(settings), clickhouse_of_events(settings)):
        existing = None if source is None else list_tables(source, CHECK_SECONDS)
        if source is not None and existing is not None and existing.isdisjoint({"traces", "events_full"}):
            raise LookupError(f"database {source.database} has neither traces nor events_full: is CLICKHOUSE_DB right?")
