"""Names of hosts, brokers, buckets and regions that can't be used are refused with their setting."""

import pytest

from config.settings import Misconfigured, load

LONG = "h" * 64


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka:notaport", "'kafka:notaport' is not a broker"),
        ("KAFKA_BOOTSTRAP_SERVERS", "one:9092,two:99999", "'two:99999' is not a broker"),
        ("KAFKA_BOOTSTRAP_SERVERS", "one:9092,two:0", "'two:0' is not a broker"),
        ("KAFKA_BOOTSTRAP_SERVERS", "http://kafka:9092", "'http://kafka:9092' is not a broker"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka 1:9092", "'kafka 1:9092' is not a broker"),
        ("KAFKA_BOOTSTRAP_SERVERS", " , ", "names no broker"),
        ("LANGFUSE_S3_BATCH_EXPORT_BUCKET", "s3://exports", "must be the name of a bucket alone"),
        ("LANGFUSE_S3_BATCH_EXPORT_BUCKET", "exports/langfuse", "LANGFUSE_S3_BATCH_EXPORT_PREFIX"),
        ("LANGFUSE_S3_BATCH_EXPORT_BUCKET", "my exports", "must be the name of a bucket alone"),
        ("LANGFUSE_S3_BATCH_EXPORT_REGION", "not a region", "'not a region' is not the name of a region"),
        ("LANGFUSE_S3_BATCH_EXPORT_REGION", "EU (Frankfurt)", "is not the name of a region"),
        ("LANGFUSE_S3_BATCH_EXPORT_PREFIX", "exports/../other/", "must not have the parts `.` and `..`"),
        ("LANGFUSE_S3_BATCH_EXPORT_PREFIX", "exports\\langfuse", "must not have"),
        ("LANGFUSE_S3_BATCH_EXPORT_ENDPOINT", "http://s 3:9000", "has a host that is not a valid host name"),
        ("CLICKHOUSE_URL", "http://u:geheim@ch,ch2:8123", "has a host that is not a valid host name"),
        ("CLICKHOUSE_URL", f"http://u:geheim@{LONG}:8123", "has a host that is not a valid host name"),
        ("SMTP_CONNECTION_URL", "smtp://u:geheim@h..h", "has a host that is not a valid host name"),
        ("DATABASE_URL", f"postgresql://u:geheim@{LONG}.example.com/db", "has a host that is not a valid host name"),
        ("DATABASE_HOST", "db..example.com", "must be a host name or an address"),
        (
            "DATABASE_URL",
            "postgresql://u:geheim@h/db?connect_timeout=soon",
            "connect_timeout that is not a whole number",
        ),
        ("DATABASE_URL", "postgresql://u:geheim@h/db?keepalives_idle=-1", "keepalives_idle that is not a whole number"),
        ("DATABASE_URL", "postgresql://u:geheim@h/db?target_session_attrs=main", "not one of any, read-write"),
        ("DATABASE_URL", "postgresql://u:geheim@h/db?channel_binding=on", "not one of disable, prefer, require"),
        ("DATABASE_ARGS", "connect_timeout=soon", "connect_timeout that is not a whole"),
    ],
)
def test_a_name_that_can_not_be_used_is_refused_with_its_setting(name: str, value: str, reason: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        load({name: value})

    (problem,) = raised.value.problems
    assert problem.startswith(f"{name}: ")
    assert reason in problem
    assert "geheim" not in problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka"),
        ("KAFKA_BOOTSTRAP_SERVERS", "b-1.msk.amazonaws.com:9098, 10.0.0.7:9092,[fd00::1]:9092"),
        ("LANGFUSE_S3_BATCH_EXPORT_BUCKET", "arn:aws:s3:eu-west-1:123456789012:accesspoint/exports"),
        ("LANGFUSE_S3_BATCH_EXPORT_BUCKET", "Old_bucket.with-Dots"),
        ("LANGFUSE_S3_BATCH_EXPORT_REGION", "auto"),
        ("LANGFUSE_S3_BATCH_EXPORT_PREFIX", "exports/..hidden/"),
        ("LANGFUSE_S3_BATCH_EXPORT_ENDPOINT", "http://minio_1:9000"),
        ("CLICKHOUSE_URL", "https://[fe80::1%25eth0]:8443"),
        ("CLICKHOUSE_URL", "http://häuschen.example:8123"),
        ("DATABASE_URL", "postgresql://u:p@/db?host=/var/run/postgresql"),
        ("DATABASE_URL", "postgresql://u:p@db.example.com./db?connect_timeout=0&target_session_attrs=any"),
    ],
)
def test_names_that_people_use_are_accepted(name: str, value: str) -> None:
    load({name: value})


def test_a_comma_at_the_end_of_the_brokers_names_no_broker() -> None:
    assert load({"KAFKA_BOOTSTRAP_SERVERS": "one:9092 ,two:9092,"}).kafka_bootstrap_servers == "one:9092,two:9092"


def test_a_login_to_kafka_without_a_password_is_reported() -> None:
    given = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "waybill"}

    with pytest.raises(Misconfigured) as raised:
        load(given)

    assert raised.value.problems == ["KAFKA_SASL_PASSWORD is missing: the value of KAFKA_SECURITY_PROTOCOL requires it"]
