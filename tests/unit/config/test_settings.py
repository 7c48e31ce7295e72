import os
from datetime import timedelta
from pathlib import Path

import pytest

from config.settings import CONSUMER_NEEDS, Misconfigured, load

COMPLETE = {
    "DATABASE_URL": "postgresql://u:p@db/app",
    "CLICKHOUSE_URL": "http://clickhouse:8123",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "LANGFUSE_S3_BATCH_EXPORT_BUCKET": "exports",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("WAYBILL_", "LANGFUSE_", "BATCH_EXPORT_", "KAFKA_", "CLICKHOUSE_", "DATABASE_", "SMTP_")):
            monkeypatch.delenv(name)


def test_defaults_are_the_documented_ones() -> None:
    settings = load(COMPLETE, needs=CONSUMER_NEEDS)

    assert settings.enabled == "false"
    assert (settings.requests_topic, settings.completions_topic) == ("export-requests", "export-completions")
    assert settings.dead_letter_topic == "export-requests-dlq"
    assert (settings.slots, settings.project_slots, settings.max_attempts) == (2, 0, 8)
    assert (settings.lease_seconds, settings.heartbeat_seconds, settings.sweep_seconds) == (60, 10, 15)
    assert (settings.retry_base_seconds, settings.stale_days, settings.drain_seconds) == (5, 30, 30)
    assert (settings.link_hours, settings.row_limit, settings.part_size_mib) == (24, None, 10)
    assert (settings.part_attempts, settings.parts_in_flight) == (None, 2)
    assert settings.destination == "s3://exports"


def test_the_parts_of_uploads_are_set_as_in_langfuse() -> None:
    settings = load(
        COMPLETE
        | {
            "BATCH_EXPORT_S3_PART_SIZE_MIB": "12.5",
            "LANGFUSE_S3_UPLOAD_MAX_PART_ATTEMPTS": "3",
            "LANGFUSE_S3_UPLOAD_MAX_CONCURRENT_PARTS": "10",
        }
    )

    assert (settings.part_size_mib, settings.part_attempts, settings.parts_in_flight) == (12.5, 3, 10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCH_EXPORT_S3_PART_SIZE_MIB", "4.9"),
        ("LANGFUSE_S3_UPLOAD_MAX_PART_ATTEMPTS", "0"),
        ("LANGFUSE_S3_UPLOAD_MAX_CONCURRENT_PARTS", "11"),
    ],
)
def test_a_wrong_setting_of_parts_is_named(name: str, value: str) -> None:
    with pytest.raises(Misconfigured, match=f"{name}: "):
        load(COMPLETE | {name: value})


def test_all_invalid_settings_are_reported_together() -> None:
    invalid = {"WAYBILL_SLOTS": "none", "CLICKHOUSE_URL": "clickhouse:8123", "WAYBILL_LEASE_SECONDS": "-1"}

    with pytest.raises(Misconfigured) as caught:
        load(COMPLETE | invalid)

    assert sorted(problem.partition(":")[0] for problem in caught.value.problems) == sorted(invalid)
    assert "CLICKHOUSE_URL: must start with http:// or https://" in caught.value.problems


def test_missing_settings_are_named() -> None:
    with pytest.raises(Misconfigured) as caught:
        load({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, needs=CONSUMER_NEEDS)

    assert caught.value.problems == [
        "DATABASE_URL is missing (or set DATABASE_HOST, DATABASE_USERNAME, DATABASE_PASSWORD, DATABASE_NAME)",
        "CLICKHOUSE_URL is missing",
        "KAFKA_BOOTSTRAP_SERVERS is missing",
        "LANGFUSE_S3_BATCH_EXPORT_BUCKET is missing (or set WAYBILL_STORAGE_URL)",
        "KAFKA_SASL_USERNAME is missing: the value of KAFKA_SECURITY_PROTOCOL requires it",
        "KAFKA_SASL_PASSWORD is missing: the value of KAFKA_SECURITY_PROTOCOL requires it",
    ]


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAYBILL_SLOTS", "")
    monkeypatch.setenv("BATCH_EXPORT_ROW_LIMIT", "")
    monkeypatch.setenv("WAYBILL_STALE_DAYS", "7")

    assert (load(COMPLETE).slots, load(COMPLETE).row_limit, load(COMPLETE).stale_days) == (2, None, 7)


def test_secrets_are_not_in_the_repr() -> None:
    secrets = {"DATABASE_URL": "postgresql://u:hush@db/app", "CLICKHOUSE_PASSWORD": "hush"}

    assert "hush" not in repr(load(COMPLETE | secrets))


KEY = "0123456789abcdef" * 2


def test_a_public_url_needs_a_secret_key() -> None:
    with pytest.raises(Misconfigured) as caught:
        load({"WAYBILL_PUBLIC_URL": "https://exports.example.com"})

    assert caught.value.problems == ["WAYBILL_SECRET_KEY is missing: WAYBILL_PUBLIC_URL requires it"]


@pytest.mark.parametrize("value", ["short", "x" * 31, f"{'x' * 40} y", "é" * 40, f"{'x' * 40}\n"])
def test_a_token_of_operators_that_is_guessable_or_fits_no_header_is_refused_unseen(value: str) -> None:
    with pytest.raises(Misconfigured, match="WAYBILL_OPERATOR_TOKEN: it needs at least 32 characters") as caught:
        load({"WAYBILL_OPERATOR_TOKEN": value})

    assert value not in str(caught.value)


@pytest.mark.parametrize("value", [KEY[:-1], f"{KEY},short", f"{KEY},", f"{KEY[:-1]} "])
def test_a_key_that_is_too_short_is_reported_without_the_key(value: str) -> None:
    with pytest.raises(Misconfigured, match="WAYBILL_SECRET_KEY: each key needs at least 32 characters") as caught:
        load({"WAYBILL_SECRET_KEY": value})

    assert KEY[:-1] not in str(caught.value)


def test_keys_are_separated_by_commas_and_are_not_in_the_repr() -> None:
    settings = load({"WAYBILL_SECRET_KEY": f"{KEY}, {KEY[::-1]}"})

    assert settings.secret_keys == (KEY.encode(), KEY[::-1].encode())
    assert load({}).secret_keys == ()
    assert KEY not in repr(settings)


@pytest.mark.parametrize(
    ("values", "consumer", "notify"),
    [
        ({}, (6066, 6065), 6067),
        ({"WAYBILL_HTTP_PORT": "80"}, (80, 6065), 80),
        ({"WAYBILL_INTERNAL_PORT": "90"}, (6066, 90), 90),
        ({"WAYBILL_HTTP_PORT": "80", "WAYBILL_INTERNAL_PORT": "90"}, (80, 90), 90),
        ({"WAYBILL_HTTP_PORT": "0", "WAYBILL_INTERNAL_PORT": "0"}, (0, 0), 0),
    ],
)
def test_the_consumer_has_two_ports_and_the_notifier_one(
    values: dict[str, str], consumer: tuple[int, int], notify: int
) -> None:
    settings = load(values)

    assert (settings.consumer_ports, settings.notify_port) == (consumer, notify)


def test_the_ports_of_the_consumer_must_differ() -> None:
    for values in ({"WAYBILL_HTTP_PORT": "6065"}, {"WAYBILL_HTTP_PORT": "80", "WAYBILL_INTERNAL_PORT": "80"}):
        with pytest.raises(Misconfigured, match="WAYBILL_INTERNAL_PORT: must differ from the port"):
            _ = load(values).consumer_ports


def test_links_of_more_than_a_week_need_links_of_our_own() -> None:
    month = {"BATCH_EXPORT_DOWNLOAD_LINK_EXPIRATION_HOURS": "720.5"}
    own = {"WAYBILL_PUBLIC_URL": "https://exports.example.com", "WAYBILL_SECRET_KEY": KEY}

    assert load(month | own).link_lifetime == timedelta(hours=720.5)
    assert load({"BATCH_EXPORT_DOWNLOAD_LINK_EXPIRATION_HOURS": "168"}).link_lifetime == timedelta(days=7)
    with pytest.raises(Misconfigured, match=r"^BATCH_EXPORT_DOWNLOAD_LINK_EXPIRATION_HOURS: more than 168 requires"):
        _ = load(month).link_lifetime


def test_the_size_of_parts_may_be_a_fraction() -> None:
    assert load({"BATCH_EXPORT_S3_PART_SIZE_MIB": "12.5"}).part_size_mib == 12.5
    for wrong in ("nan", "4.9", "100.1"):
        with pytest.raises(Misconfigured, match=r"^BATCH_EXPORT_S3_PART_SIZE_MIB: "):
            load({"BATCH_EXPORT_S3_PART_SIZE_MIB": wrong})


def test_history_is_kept_as_long_as_events_can_be_replayed_and_exports_started() -> None:
    def history(**values: str) -> float:
        return load(values).history.total_seconds() / 86_400

    assert history() == 90
    assert history(WAYBILL_HISTORY_DAYS="120") == 120
    assert history(WAYBILL_HISTORY_DAYS="1") == 30
    assert history(WAYBILL_HISTORY_DAYS="1", WAYBILL_STALE_DAYS="2") == 14
    assert history(WAYBILL_TOPIC_RETENTION_HOURS="4800") == 207
    assert history(BATCH_EXPORT_DOWNLOAD_LINK_EXPIRATION_HOURS="4800") == 200


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "KAFKA_SSL_CA_LOCATION"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "can't be read (no such file or directory)"),
        ("", "has no certificate"),
        ("-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n", "has no certificate"),
    ],
)
def test_a_file_without_authorities_is_reported_with_its_setting(
    tmp_path: Path, name: str, content: str | None, reason: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)

    with pytest.raises(Misconfigured) as raised:
        load({name: str(path)})

    (problem,) = raised.value.problems
    assert problem.startswith(f"{name}: the file {path} {reason}")
    assert problem.endswith("name a PEM file with CA certificates")


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "KAFKA_SSL_CA_LOCATION"])
def test_a_folder_is_no_file_with_authorities(tmp_path: Path, name: str) -> None:
    with pytest.raises(Misconfigured, match="is a directory"):
        load({name: str(tmp_path)})


@pytest.mark.parametrize("name", ["KAFKA_SSL_CA_LOCATION", "KAFKA_BOOTSTRAP_SERVERS", "SSL_CERT_FILE"])
def test_a_url_in_the_wrong_variable_does_not_show_its_password(name: str) -> None:
    with pytest.raises(Misconfigured, match=f"{name}: ") as raised:
        load({name: "https://ada:hush@host.example"})

    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("name", ["KAFKA_SSL_CA_LOCATION", "KAFKA_SASL_PASSWORD", "SMTP_OAUTH_SCOPE", "WAYBILL_SLOTS"])
def test_a_value_that_is_not_utf_8_is_reported(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(os.environb, name.encode(), b"hush\xff")

    with pytest.raises(Misconfigured) as raised:
        load()

    assert raised.value.problems == [f"{name}: is not UTF-8: is it a text, and not a binary key or a file?"]
