"""Settings that the bridge can't use end it with status 2 and a sentence for each."""

import subprocess
from pathlib import Path

import pytest

from tests.services import bridge
from tests.services.redis import Redis
from tests.support.certificates import Authority, make_authority

REDIS = {"REDIS_HOST": "127.0.0.1"}
KAFKA = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092"}
SECRET = "s3cr3t-value"


def _start(main: Path, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([bridge.node(), main], env=settings, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize(
    ("settings", "sentences"),
    [
        ({}, ["REDIS_HOST is missing, and so is REDIS_CONNECTION_STRING", "KAFKA_BOOTSTRAP_SERVERS is missing"]),
        (REDIS | KAFKA | {"REDIS_PORT": "70000"}, ['REDIS_PORT is "70000"; expected is a port']),
        (REDIS | KAFKA | {"REDIS_TLS_ENABLED": "yes"}, ['REDIS_TLS_ENABLED is "yes"; it can be true, false']),
        (REDIS | KAFKA | {"WAYBILL_LOG_FORMAT": "xml"}, ['WAYBILL_LOG_FORMAT is "xml"; it can be json, text']),
        (REDIS | KAFKA | {"WAYBILL_REQUESTS_TOPIC": "a b"}, ['WAYBILL_REQUESTS_TOPIC is "a b"']),
        (
            KAFKA | {"REDIS_CONNECTION_STRING": f"http://user:{SECRET}@redis:6379"},
            ["REDIS_CONNECTION_STRING is no URL of a Redis server; expected is redis://"],
        ),
        (
            KAFKA | {"REDIS_CONNECTION_STRING": f"redis://user:%{SECRET}@redis"},
            ['REDIS_CONNECTION_STRING has a user or a password in which a "%" begins no code'],
        ),
        (KAFKA | {"REDIS_CONNECTION_STRING": f"redis://:{SECRET}@redis/zero"}, ["REDIS_CONNECTION_STRING is no URL"]),
        (
            REDIS | {"KAFKA_BOOTSTRAP_SERVERS": f"kafka:9092,user:{SECRET}@kafka"},
            ["KAFKA_BOOTSTRAP_SERVERS has the invalid server; expected is host:port"],
        ),
        (REDIS | {"KAFKA_BOOTSTRAP_SERVERS": "kafka:port"}, ['has the invalid server "kafka:port"']),
        (KAFKA | {"REDIS_CLUSTER_ENABLED": "true"}, ["REDIS_CLUSTER_NODES is missing: REDIS_CLUSTER_ENABLED=true"]),
        (
            KAFKA | {"REDIS_CLUSTER_ENABLED": "true", "REDIS_CLUSTER_NODES": "one"},
            ['REDIS_CLUSTER_NODES has the invalid server "one"'],
        ),
        (
            KAFKA | {"REDIS_SENTINEL_ENABLED": "true"},
            ["REDIS_SENTINEL_MASTER_NAME is missing", "REDIS_SENTINEL_NODES is missing"],
        ),
        (
            KAFKA | {"REDIS_SENTINEL_ENABLED": "true", "REDIS_CLUSTER_ENABLED": "true"},
            ["REDIS_CLUSTER_ENABLED and REDIS_SENTINEL_ENABLED are both true"],
        ),
        (REDIS | KAFKA | {"KAFKA_SECURITY_PROTOCOL": "TLS"}, ['KAFKA_SECURITY_PROTOCOL is "TLS"; it can be PLAINTEXT']),
        (
            REDIS | KAFKA | {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
            ["KAFKA_SASL_USERNAME is missing", "KAFKA_SASL_PASSWORD is missing"],
        ),
        *(
            (
                REDIS | KAFKA | {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": mechanism},
                [f"KAFKA_SASL_MECHANISM={mechanism} is not supported by the bridge"],
            )
            for mechanism in ("OAUTHBEARER", "AWS_MSK_IAM")
        ),
        (
            REDIS | KAFKA | {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_LOCATION": "/nowhere.pem"},
            ['KAFKA_SSL_CA_LOCATION is "/nowhere.pem", which can\'t be read: ENOENT'],
        ),
        (
            REDIS | KAFKA | {"REDIS_TLS_ENABLED": "true", "REDIS_TLS_CA_PATH": "/dev/null"},
            ['REDIS_TLS_CA_PATH is "/dev/null", which contains no certificate in PEM format'],
        ),
    ],
)
def test_a_wrong_setting_ends_the_bridge_with_a_sentence(
    installed: Path, settings: dict[str, str], sentences: list[str]
) -> None:
    ended = _start(installed, settings)
    assert ended.returncode == 2, ended
    lines = ended.stderr.splitlines()
    assert all(line.startswith("waybill-bridge: ") for line in lines)
    assert len(lines) == len(sentences)
    assert all(sentence in line for sentence, line in zip(sentences, lines, strict=True)), lines
    assert SECRET not in ended.stderr + ended.stdout


def test_files_for_tls_that_do_not_fit_together_are_refused(installed: Path, authority: Authority) -> None:
    kafka = {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTIFICATE_LOCATION": str(authority.certificate)}
    alone = _start(installed, REDIS | KAFKA | kafka)
    other = _start(installed, REDIS | KAFKA | kafka | {"KAFKA_SSL_KEY_LOCATION": str(authority.file)})
    assert (alone.returncode, other.returncode) == (2, 2)
    assert "KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION require each other" in alone.stderr
    assert "KAFKA_SSL_KEY_PASSWORD can't be used" in other.stderr


def test_a_port_that_is_taken_is_named(installed: Path, redis: Redis) -> None:
    port = str(redis.port)
    ended = _start(installed, REDIS | KAFKA | {"WAYBILL_INTERNAL_PORT": port, "WAYBILL_HTTP_HOST": "127.0.0.1"})
    assert ended.returncode == 2
    assert (
        ended.stderr
        == f"waybill-bridge: WAYBILL_INTERNAL_PORT is {port}, on which 127.0.0.1 can't listen: EADDRINUSE\n"
    )
