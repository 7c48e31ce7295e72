"""Commands that prepare and inspect an installation: migrate, topics, config."""

from typing import Annotated, Any

import typer
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic
from pydantic import SecretStr

from cli import build
from cli.output import console, fail, print_fields, print_json, print_note
from config.settings import Settings, list_unknown, load
from config.urls import MASK, mask_password
from runtime.kafka_admin import KafkaAdmin
from runtime.kafka_clients import MESSAGE_BYTES
from runtime.migrations import migrate as migrate_database

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TOPIC_SECONDS = 30.0


def migrate(
    with_application_schema: Annotated[
        bool,
        typer.Option(
            "--with-application-schema",
            help="Also create Langfuse's tables, in the database and in ClickHouse (for development only).",
        ),
    ] = False,
) -> None:
    """Create or upgrade Waybill's own tables; Langfuse's tables are never changed."""
    settings = load(needs=["DATABASE_URL"])
    engine = build.engine(settings)
    if with_application_schema:
        from embedded.schema import create_langfuse_schema

        with build.clickhouse_client(load(needs=["CLICKHOUSE_URL"])) as client:
            create_langfuse_schema(client, engine)
        console().print("Langfuse's tables are up to date.")
    migrate_database(engine)
    console().print("Waybill's tables are up to date.")


def topics() -> None:
    """Create missing Kafka topics, with the partitions, replication and retention of the settings."""
    settings = load(needs=["KAFKA_BOOTSTRAP_SERVERS"])
    try:
        admin = KafkaAdmin(settings)
    except ConnectionError as error:
        fail(str(error))
    retention = str(int(settings.topic_retention_hours * 3600 * 1000))
    wanted = [
        NewTopic(
            settings.requests_topic,
            settings.topic_partitions,
            settings.topic_replication,
            config={"retention.ms": retention},
        ),
        NewTopic(
            settings.completions_topic,
            settings.topic_partitions,
            settings.topic_replication,
            config={"retention.ms": retention},
        ),
        NewTopic(
            settings.dead_letter_topic, 1, settings.topic_replication, config={"max.message.bytes": str(MESSAGE_BYTES)}
        ),
    ]
    created = admin.ask(
        lambda client: client.create_topics(wanted, operation_timeout=TOPIC_SECONDS, request_timeout=TOPIC_SECONDS)
    )
    for name, future in created.items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                fail(f"Could not create topic {name}: {admin.explain(error)}")
            console().print(f"{name}: exists")
        else:
            console().print(f"{name}: created")


def config(as_json: JsonFlag = False) -> None:
    """Show the effective settings, with secrets masked."""
    shown = effective_settings(load())
    for unknown in list_unknown():
        print_note(unknown)
    if as_json:
        print_json(shown)
    else:
        print_fields({name: _to_text(value) for name, value in shown.items()})


def effective_settings(settings: Settings) -> dict[str, Any]:
    """Return every setting by its variable name, with passwords and keys masked."""
    return {str(field.alias): _mask(getattr(settings, name)) for name, field in type(settings).model_fields.items()}


def _to_text(value: Any) -> str | None:
    """Write a setting as its variable would be written; None if it is unset."""
    return (str(value).lower() if isinstance(value, bool) else str(value)) if value not in (None, "") else None


def _mask(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    return mask_password(value) if isinstance(value, str) else value
