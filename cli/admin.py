"""Commands that prepare and inspect an installation: migrate, topics, doctor, config."""

from typing import Annotated, Any

import typer
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.engine import URL

from cli import build
from cli.output import console, fail, print_fields, print_json
from config.settings import Settings, load
from runtime.kafka import MESSAGE_BYTES, client_config
from runtime.migrations import migrate as migrate_database

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TOPIC_SECONDS = 30.0
COLOURS = {"ok": "green", "off": "yellow", "failed": "bold red"}


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
    admin = AdminClient(client_config(settings))
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
    for name, future in admin.create_topics(
        wanted, operation_timeout=TOPIC_SECONDS, request_timeout=TOPIC_SECONDS
    ).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                fail(f"Could not create topic {name}: {error.args[0].str()}")
            console().print(f"{name}: exists")
        else:
            console().print(f"{name}: created")


def doctor(as_json: JsonFlag = False) -> None:
    """Check every dependency and report what is wrong."""
    settings = load(needs=["DATABASE_URL"])
    results = {name: _diagnose(check) for name, check in build.checks(settings, build.engine(settings)).items()}
    if as_json:
        print_json({name: why or mark for name, (mark, why) in results.items()})
    else:
        for name, (mark, why) in results.items():
            console().print(f"{name:<12} [{COLOURS[mark]}]{mark}[/]")
            if why is not None:
                console().print(f"             {why}", markup=False)
    if any(mark == "failed" for mark, _ in results.values()):
        raise typer.Exit(1)


def _diagnose(check: build.Check) -> tuple[str, str | None]:
    """Run a check; return its result, and the reason if it is not ok."""
    try:
        check()
    except build.Unused as why:
        return "off", str(why)
    except Exception as error:  # noqa: BLE001 (any error is the diagnosis)
        return "failed", str(error).strip() or type(error).__name__
    return "ok", None


def config(as_json: JsonFlag = False) -> None:
    """Show the effective settings, with secrets masked."""
    shown = effective_settings(load())
    if as_json:
        print_json(shown)
    else:
        print_fields(shown)


def effective_settings(settings: Settings) -> dict[str, Any]:
    """Return every setting by its variable name, with passwords and keys masked."""
    return {str(field.alias): _mask(getattr(settings, name)) for name, field in type(settings).model_fields.items()}


def _mask(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "**********" if value.get_secret_value() else ""
    if isinstance(value, str) and "://" in value and "@" in value:
        url: URL = make_url(value)
        return url.render_as_string(hide_password=True)
    return value
