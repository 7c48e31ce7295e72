"""Declares every setting and reads them once, from the environment."""

import os
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy import URL

from config import names, urls
from config.database_url import DatabaseAddress, check_host, check_parameters, read_address, write_url
from config.pem_files import AuthoritiesFile
from config.required import DATABASE, STORAGE, find_missing, say_missing
from config.secret_keys import check_keys, check_token, split_keys
from config.settings_channels import ChannelSettings, find_channel_problems
from config.settings_kafka import KafkaSettings, find_kafka_problems
from config.settings_mail import MailSettings
from config.storage_choice import Switch, find_contradictions, name_bucket, refuse_oci
from config.unknown_names import find_unknown

LINK_HOURS = "BATCH_EXPORT_DOWNLOAD_LINK_EXPIRATION_HOURS"
SIGV4_MAX_HOURS = 7 * 24
LONGEST_SEGMENT = timedelta(days=7)
"""Kafka's `segment.ms`: an event stays this much longer than the retention, because whole segments are deleted."""
MOST_DAYS = 36_500
NOT_UTF8 = "is not UTF-8: is it a text, and not a binary key or a file?"

LINKS_PORT = 6066
CONSUMER_INTERNAL_PORT = 6065
NOTIFY_INTERNAL_PORT = 6067

CONSUMER_NEEDS = (DATABASE, "CLICKHOUSE_URL", "KAFKA_BOOTSTRAP_SERVERS", STORAGE)
NOTIFY_NEEDS = (DATABASE, "KAFKA_BOOTSTRAP_SERVERS")


class Misconfigured(ValueError):
    """One or more settings are invalid or missing; `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


HttpUrl = Annotated[str, AfterValidator(urls.read_http)]
StoreUrl = Annotated[str, AfterValidator(urls.read_store)]
ClickHouseUrl = Annotated[str, AfterValidator(urls.read_clickhouse)]


class Settings(KafkaSettings, MailSettings, ChannelSettings):
    """The effective settings; a field is named like its environment variable, in lower case and without the prefix.

    An empty variable counts as unset. The end of a name is its unit.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True)

    enabled: Literal["true", "false"] = Field("false", alias="LANGFUSE_S3_BATCH_EXPORT_ENABLED")
    bucket: Annotated[str, AfterValidator(names.read_bucket)] | None = Field(
        None, alias="LANGFUSE_S3_BATCH_EXPORT_BUCKET"
    )
    prefix: Annotated[str, AfterValidator(names.read_prefix)] = Field("", alias="LANGFUSE_S3_BATCH_EXPORT_PREFIX")
    region: Annotated[str, AfterValidator(names.read_region)] | None = Field(
        None, alias="LANGFUSE_S3_BATCH_EXPORT_REGION"
    )
    endpoint: StoreUrl | None = Field(None, alias="LANGFUSE_S3_BATCH_EXPORT_ENDPOINT")
    external_endpoint: StoreUrl | None = Field(None, alias="LANGFUSE_S3_BATCH_EXPORT_EXTERNAL_ENDPOINT")
    access_key_id: str | None = Field(None, alias="LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID")
    secret_access_key: SecretStr | None = Field(None, alias="LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY")
    force_path_style: bool = Field(default=False, alias="LANGFUSE_S3_BATCH_EXPORT_FORCE_PATH_STYLE")
    sse: Literal["AES256", "aws:kms"] | None = Field(None, alias="LANGFUSE_S3_BATCH_EXPORT_SSE")
    sse_kms_key_id: str | None = Field(None, alias="LANGFUSE_S3_BATCH_EXPORT_SSE_KMS_KEY_ID")
    part_size_mib: float = Field(10, alias="BATCH_EXPORT_S3_PART_SIZE_MIB", ge=5, le=100)
    part_attempts: int | None = Field(None, alias="LANGFUSE_S3_UPLOAD_MAX_PART_ATTEMPTS", ge=1, le=10)
    parts_in_flight: int = Field(2, alias="LANGFUSE_S3_UPLOAD_MAX_CONCURRENT_PARTS", ge=1, le=10)
    use_azure: Switch = Field("false", alias="LANGFUSE_USE_AZURE_BLOB")
    azure_skip_container_check: Switch = Field("true", alias="LANGFUSE_AZURE_SKIP_CONTAINER_CHECK")
    use_google: Switch = Field("false", alias="LANGFUSE_USE_GOOGLE_CLOUD_STORAGE")
    google_credentials: SecretStr | None = Field(None, alias="LANGFUSE_GOOGLE_CLOUD_STORAGE_CREDENTIALS")
    use_oci: Annotated[Switch, AfterValidator(refuse_oci)] = Field(
        "false", alias="LANGFUSE_USE_OCI_NATIVE_OBJECT_STORAGE"
    )
    storage_url: Annotated[str, AfterValidator(urls.read_storage)] | None = Field(None, alias="WAYBILL_STORAGE_URL")

    link_hours: float = Field(24, alias=LINK_HOURS, gt=0, le=24 * MOST_DAYS)
    row_limit: int | None = Field(None, alias="BATCH_EXPORT_ROW_LIMIT", ge=1)
    max_row_mib: int = Field(32, alias="WAYBILL_MAX_ROW_MIB", ge=20, le=1024)

    database_url: Annotated[str, AfterValidator(urls.read_database)] | None = Field(
        None, alias="DATABASE_URL", repr=False
    )
    database_host: Annotated[str, AfterValidator(check_host)] | None = Field(None, alias="DATABASE_HOST")
    database_username: str | None = Field(None, alias="DATABASE_USERNAME")
    database_password: SecretStr | None = Field(None, alias="DATABASE_PASSWORD")
    database_name: str | None = Field(None, alias="DATABASE_NAME")
    database_args: Annotated[str, AfterValidator(check_parameters)] | None = Field(
        None, alias="DATABASE_ARGS", repr=False
    )
    clickhouse_url: ClickHouseUrl | None = Field(None, alias="CLICKHOUSE_URL", repr=False)
    clickhouse_read_only_url: ClickHouseUrl | None = Field(None, alias="CLICKHOUSE_READ_ONLY_URL", repr=False)
    clickhouse_events_read_only_url: ClickHouseUrl | None = Field(
        None, alias="CLICKHOUSE_EVENTS_READ_ONLY_URL", repr=False
    )
    clickhouse_disable_lazy_materialization: Literal["auto", "true", "false"] = Field(
        "auto", alias="CLICKHOUSE_DISABLE_LAZY_MATERIALIZATION"
    )
    clickhouse_disable_top_k_through_join: Literal["auto", "true", "false"] = Field(
        "auto", alias="CLICKHOUSE_DISABLE_TOP_K_THROUGH_JOIN"
    )
    clickhouse_max_bytes_before_external_group_by: int | None = Field(
        None, alias="CLICKHOUSE_MAX_BYTES_BEFORE_EXTERNAL_GROUP_BY", ge=0
    )
    clickhouse_use_query_condition_cache: Literal["true", "false"] | None = Field(
        None, alias="CLICKHOUSE_USE_QUERY_CONDITION_CACHE"
    )
    clickhouse_user: str = Field("default", alias="CLICKHOUSE_USER")
    clickhouse_password: SecretStr = Field(SecretStr(""), alias="CLICKHOUSE_PASSWORD")
    clickhouse_db: str = Field("default", alias="CLICKHOUSE_DB")

    nextauth_url: HttpUrl | None = Field(None, alias="NEXTAUTH_URL")

    requests_topic: str = Field("export-requests", alias="WAYBILL_REQUESTS_TOPIC", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    completions_topic: str = Field(
        "export-completions", alias="WAYBILL_COMPLETIONS_TOPIC", pattern=r"^[A-Za-z0-9._-]{1,249}$"
    )
    dead_letter_topic: str = Field(
        "export-requests-dlq", alias="WAYBILL_DEAD_LETTER_TOPIC", pattern=r"^[A-Za-z0-9._-]{1,249}$"
    )
    topic_partitions: int = Field(8, alias="WAYBILL_TOPIC_PARTITIONS", ge=1)
    topic_replication: int = Field(1, alias="WAYBILL_TOPIC_REPLICATION", ge=1)
    topic_retention_hours: float = Field(7 * 24, alias="WAYBILL_TOPIC_RETENTION_HOURS", gt=0, le=24 * MOST_DAYS)
    kafka_member_id: str | None = Field(None, alias="WAYBILL_KAFKA_MEMBER_ID")
    consumer_group: str = Field("waybill-consumer", alias="WAYBILL_CONSUMER_GROUP", min_length=1)
    notify_group: str = Field("waybill-notify", alias="WAYBILL_NOTIFY_GROUP", min_length=1)

    slots: int = Field(2, alias="WAYBILL_SLOTS", ge=1, le=256)
    project_slots: int = Field(0, alias="WAYBILL_PROJECT_SLOTS", ge=0)
    lease_seconds: float = Field(60, alias="WAYBILL_LEASE_SECONDS", gt=0, le=86_400)
    heartbeat_seconds: float = Field(10, alias="WAYBILL_HEARTBEAT_SECONDS", gt=0, validate_default=True)
    sweep_seconds: float = Field(15, alias="WAYBILL_SWEEP_SECONDS", gt=0)
    max_attempts: int = Field(8, alias="WAYBILL_MAX_ATTEMPTS", ge=1)
    retry_base_seconds: float = Field(5, alias="WAYBILL_RETRY_BASE_SECONDS", gt=0)
    stale_days: float = Field(30, alias="WAYBILL_STALE_DAYS", gt=0, le=MOST_DAYS)
    history_days: float = Field(90, alias="WAYBILL_HISTORY_DAYS", gt=0, le=MOST_DAYS)
    delete_expired: bool = Field(default=False, alias="WAYBILL_DELETE_EXPIRED")
    stall_seconds: float = Field(900, alias="WAYBILL_STALL_SECONDS", gt=0)
    drain_seconds: float = Field(30, alias="WAYBILL_DRAIN_SECONDS", ge=0)
    http_host: str = Field("0.0.0.0", alias="WAYBILL_HTTP_HOST")  # noqa: S104 (probes and scrapers connect from outside)
    http_port: int | None = Field(None, alias="WAYBILL_HTTP_PORT", ge=0, le=65535)
    internal_port: int | None = Field(None, alias="WAYBILL_INTERNAL_PORT", ge=0, le=65535)
    public_url: HttpUrl | None = Field(None, alias="WAYBILL_PUBLIC_URL")
    secret_key: Annotated[SecretStr, AfterValidator(check_keys)] | None = Field(None, alias="WAYBILL_SECRET_KEY")
    operator_token: Annotated[SecretStr, AfterValidator(check_token)] | None = Field(
        None, alias="WAYBILL_OPERATOR_TOKEN"
    )
    trusted_proxies: int = Field(0, alias="WAYBILL_TRUSTED_PROXIES", ge=0)
    notice_hours: float = Field(24, alias="WAYBILL_NOTICE_HOURS", gt=0)
    csv_neutralise: bool = Field(default=True, alias="WAYBILL_CSV_NEUTRALISE_FORMULAS")
    csv_bom: bool = Field(default=False, alias="WAYBILL_CSV_BOM")
    otel_endpoint: HttpUrl | None = Field(None, alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    ssl_cert_file: AuthoritiesFile | None = Field(None, alias="SSL_CERT_FILE")
    strict_settings: bool = Field(default=False, alias="WAYBILL_STRICT_SETTINGS")
    log_format: Literal["json", "text"] | None = Field(None, alias="WAYBILL_LOG_FORMAT")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", alias="WAYBILL_LOG_LEVEL")

    @field_validator("heartbeat_seconds")
    @classmethod
    def _limit_to_lease(cls, value: float, info: ValidationInfo) -> float:
        """Limit the interval to a third of the lease, because one late heartbeat must not lose the lease."""
        lease: float = info.data.get("lease_seconds", 3 * value)
        return min(value, lease / 3)

    @property
    def database_address(self) -> DatabaseAddress:
        """The address of the Langfuse database: DATABASE_URL, or else its parts; raises Misconfigured without both."""
        if self.database_url is not None:
            return read_address(self.database_url)
        host, user, password, name = (
            self.database_host,
            self.database_username,
            self.database_password,
            self.database_name,
        )
        if host is None or user is None or password is None or name is None:
            raise Misconfigured([say_missing(DATABASE)])
        return read_address(write_url(host, user, password.get_secret_value(), name, self.database_args or ""))

    @property
    def database(self) -> URL:
        """The database URL for SQLAlchemy; raises Misconfigured as `database_address` does."""
        return self.database_address.url

    @property
    def consumer_ports(self) -> tuple[int, int]:
        """The consumer's port for links and its internal port; raises Misconfigured if they are the same."""
        links = LINKS_PORT if self.http_port is None else self.http_port
        internal = CONSUMER_INTERNAL_PORT if self.internal_port is None else self.internal_port
        if links == internal != 0:
            raise Misconfigured([f"WAYBILL_INTERNAL_PORT: must differ from the port of the links ({links})"])
        return links, internal

    @property
    def notify_port(self) -> int:
        """The notifier's internal port, its only one; WAYBILL_HTTP_PORT was its name before there were two."""
        chosen = (port for port in (self.internal_port, self.http_port) if port is not None)
        return next(chosen, NOTIFY_INTERNAL_PORT)

    @property
    def history(self) -> timedelta:
        """How long ended runs and notices are kept.

        It is never shorter than events stay in the completions topic, because replaying events without their notices
        would send the emails again, nor than links are valid, nor than an export may be started again.
        """
        return max(
            timedelta(days=self.history_days),
            timedelta(hours=self.topic_retention_hours) + LONGEST_SEGMENT,
            timedelta(hours=self.link_hours),
            timedelta(days=self.stale_days),
        )

    @property
    def link_lifetime(self) -> timedelta:
        """How long links are valid; raises Misconfigured if signed URLs can't be, and there are no own links."""
        if self.link_hours > SIGV4_MAX_HOURS and self.public_url is None:
            problem = f"{LINK_HOURS}: more than {SIGV4_MAX_HOURS} requires WAYBILL_PUBLIC_URL"
            raise Misconfigured([f"{problem}, because the store's signed URLs can't be valid for longer"])
        return timedelta(hours=self.link_hours)

    @property
    def secret_keys(self) -> tuple[bytes, ...]:
        """The keys of WAYBILL_SECRET_KEY: links are written with the first and read with all."""
        return tuple(key.encode() for key in split_keys(self.secret_key)) if self.secret_key is not None else ()

    @property
    def destination(self) -> str:
        """The fsspec URL that files are stored under; raises Misconfigured without a bucket or WAYBILL_STORAGE_URL."""
        if self.storage_url is not None:
            return self.storage_url
        if self.bucket is None:
            raise Misconfigured([say_missing(STORAGE)])
        return name_bucket(self.bucket, azure=self.use_azure == "true", google=self.use_google == "true")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (pydantic's signature)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic's signature)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read only the values that the caller gives and the environment."""
        return init_settings, env_settings


def load(values: Mapping[str, str] | None = None, *, needs: Collection[str] = ()) -> Settings:
    """Read the settings from the environment; `values`, by variable name, take precedence.

    `needs` names the variables that must be set. Raises Misconfigured with all invalid and missing variables together,
    so that they can be corrected in one go.
    """
    settings, problems = load_valid(values, needs=needs)
    if problems:
        raise Misconfigured(problems)
    return settings


def load_valid(values: Mapping[str, str] | None = None, *, needs: Collection[str] = ()) -> tuple[Settings, list[str]]:
    """Read the settings as `load` does; return those that are valid, and one sentence for each that is not."""
    given = {**os.environ, **(values or {})}
    defaults = {str(field.alias): field.default for field in Settings.model_fields.values()}
    invalid = {name: NOT_UTF8 for name in defaults if not _is_text(given.get(name, ""))}
    known = {**(values or {}), **{name: defaults[name] for name in invalid}}
    try:
        settings = Settings(**known)
    except ValidationError as error:
        invalid |= {str(each["loc"][0]): each["msg"] for each in error.errors(include_url=False)}
        settings = Settings(**{**known, **{name: defaults[name] for name in invalid}})
    problems = [_problem(name, message) for name, message in invalid.items()]
    problems += [*find_missing(given, needs), *find_kafka_problems(given), *find_contradictions(given)]
    problems += find_channel_problems(given)
    return settings, [*problems, *(list_unknown(values) if settings.strict_settings else ())]


def list_unknown(values: Mapping[str, str] | None = None) -> list[str]:
    """Return one sentence for each variable that is probably a misspelt setting, with the most similar one."""
    known = {str(field.alias) for field in Settings.model_fields.values()}
    return list(find_unknown({**os.environ, **(values or {})}, known))


def _is_text(value: str) -> bool:
    """Return whether a variable was UTF-8: Python keeps other bytes as surrogates, which no client can send."""
    return value == value.encode(errors="ignore").decode()


def _problem(name: str, message: str) -> str:
    # A URL may be the value of a setting that is none, and so be repeated.
    return f"{name}: {urls.mask_password(message.removeprefix('Value error, '))}"
