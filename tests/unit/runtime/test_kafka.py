from pathlib import Path
from typing import Any

import faust
import pytest

from config.settings import Misconfigured, Settings, load
from runtime.kafka import SESSION_SECONDS, STATIC_SESSION_SECONDS, build_app
from runtime.kafka_admin import check_topics
from runtime.kafka_clients import client_config
from tests.services.stacks import Stack
from tests.support.certificates import make_authority

SASL = {
    "KAFKA_BOOTSTRAP_SERVERS": "one:9093, two:9093",
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "waybill",
    "KAFKA_SASL_PASSWORD": "hush",
}
NOWHERE = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}


def app_of(tmp_path: Path, **values: str) -> faust.App:
    settings = load({"KAFKA_BOOTSTRAP_SERVERS": "one:9092"} | values)
    return build_app(settings, group="group", datadir=tmp_path)


def test_clients_authenticate_as_the_settings_say() -> None:
    config = client_config(load(SASL))

    assert config["bootstrap.servers"] == "one:9093,two:9093"
    assert (config["sasl.mechanism"], config["sasl.username"], config["sasl.password"]) == (
        "SCRAM-SHA-512",
        "waybill",
        "hush",
    )


def test_ssl_cert_file_names_the_authorities_unless_kafka_has_a_file_of_its_own(tmp_path: Path) -> None:
    everywhere, own = (make_authority(tmp_path / name).file for name in ("everywhere", "own"))
    trusting = {"KAFKA_BOOTSTRAP_SERVERS": "one:9093", "SSL_CERT_FILE": str(everywhere)}

    assert client_config(load(trusting))["ssl.ca.location"] == str(everywhere)
    assert client_config(load(trusting | {"KAFKA_SSL_CA_LOCATION": str(own)}))["ssl.ca.location"] == str(own)


def test_faust_authenticates_as_the_settings_say(tmp_path: Path) -> None:
    conf = app_of(tmp_path, **SASL).conf
    credentials: Any = conf.broker_credentials

    assert [str(each) for each in conf.broker] == ["kafka://one:9093", "kafka://two:9093"]
    assert credentials.protocol.value == "SASL_SSL"
    assert (credentials.mechanism.value, credentials.username, credentials.password) == (
        "SCRAM-SHA-512",
        "waybill",
        "hush",
    )
    assert credentials.ssl_context.check_hostname


def test_an_event_may_wait_for_hours(tmp_path: Path) -> None:
    conf = app_of(tmp_path).conf

    assert not conf.stream_wait_empty
    assert conf.broker_max_poll_interval >= 24 * 3600
    assert (conf.consumer_auto_offset_reset, conf.topic_disable_leader) == ("earliest", True)
    assert conf.broker_session_timeout == SESSION_SECONDS
    assert conf.id == "group"


def test_a_static_member_keeps_its_partitions_during_a_restart(tmp_path: Path) -> None:
    conf = app_of(tmp_path, WAYBILL_KAFKA_MEMBER_ID="pod-0").conf

    assert (conf.consumer_group_instance_id, conf.broker_session_timeout) == ("pod-0", STATIC_SESSION_SECONDS)


def test_missing_servers_are_a_configuration_error() -> None:
    with pytest.raises(Misconfigured, match="KAFKA_BOOTSTRAP_SERVERS is missing"):
        client_config(Settings())


def test_unreachable_brokers_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.kafka_admin.CHECK_SECONDS", 0.2)

    with pytest.raises(ConnectionError, match="Kafka does not answer"):
        check_topics(load(NOWHERE), "export-requests")


def test_a_topic_that_is_missing_is_named(stack: Stack, request: pytest.FixtureRequest) -> None:
    if "real" not in request.node.callspec.id:
        pytest.skip("the mock broker creates every topic that is requested")

    with pytest.raises(ConnectionError, match="topic nowhere is missing: run `waybill topics`"):
        check_topics(load(stack.environment()), "nowhere")
