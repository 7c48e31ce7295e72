"""Finds what the Kafka user may not do with the topics and groups, although Waybill needs it."""

import base64
import json
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin._acl import AclOperation

from config.settings import Settings
from config.settings_kafka import AWS_MSK_IAM
from runtime.kafka_admin import CHECK_SECONDS, KafkaAdmin, find_topic_problem
from runtime.kafka_tokens import open_tokens
from runtime.retry import Backoff

_ANONYMOUS = "ANONYMOUS"
LOADING = Backoff(0.2, longest=3.2)
_LOADING_CODES = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
# Brokers that can't tell are old, or the embedded one, which has no rights.
_CANT_TELL = {KafkaError._UNSUPPORTED_FEATURE, KafkaError._TIMED_OUT}  # noqa: SLF001 (librdkafka's own codes have such names)


def find_problems(settings: Settings) -> list[str]:
    """Return one sentence for each thing that is missing, with its remedy; raises ConnectionError without a broker."""
    admin = KafkaAdmin(settings)
    topics = (settings.requests_topic, settings.completions_topic, settings.dead_letter_topic)
    problems = {topic: find_topic_problem(admin, topic) for topic in topics}
    user = find_user(settings)
    return [
        *(problem for problem in problems.values() if problem is not None),
        *_find_topic_rights(admin, [topic for topic, problem in problems.items() if problem is None], user),
        *_find_group_rights(admin, [settings.consumer_group, settings.notify_group], user),
    ]


def find_user(settings: Settings) -> str | None:
    """Return the name that ACLs have for the user, as brokers name it by default; None if IAM replaces them.

    It is the user of the password, the `sub` of the token, or the subject of the certificate.
    """
    if settings.kafka_sasl_mechanism == AWS_MSK_IAM:
        return None
    if settings.kafka_security_protocol.startswith("SASL"):
        tokens = open_tokens(settings)
        if tokens is None:
            return settings.kafka_sasl_username or _ANONYMOUS
        return _read_subject(tokens.get().value) or settings.kafka_oauth_client_id or _ANONYMOUS
    file = settings.kafka_ssl_certificate_location
    if settings.kafka_security_protocol == "SSL" and file is not None:
        from cryptography.x509 import load_pem_x509_certificate

        return load_pem_x509_certificate(Path(file).read_bytes()).subject.rfc4514_string()
    return _ANONYMOUS


def _read_subject(token: str) -> str | None:
    """Return the `sub` of a JWT without verifying it, or None if the token is something else."""
    try:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return str(claims["sub"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _find_topic_rights(admin: KafkaAdmin, topics: list[str], user: str | None) -> Iterator[str]:
    if not topics:
        return
    asked = admin.ask(
        lambda client: client.describe_topics(
            TopicCollection(topics), include_authorized_operations=True, request_timeout=CHECK_SECONDS
        )
    )
    for topic, answer in asked.items():
        allowed = _read_operations(answer)
        for operation in (AclOperation.READ, AclOperation.WRITE):
            if allowed is not None and operation not in allowed:
                yield _lacks(user, operation.name, "topic", topic)


def _find_group_rights(admin: KafkaAdmin, groups: list[str], user: str | None) -> Iterator[str]:
    for group in groups:
        allowed = _describe_group(admin, group)
        if allowed is not None and AclOperation.READ not in allowed:
            yield _lacks(user, "READ", "group", group)


def _describe_group(admin: KafkaAdmin, group: str) -> set[AclOperation] | None:
    """Return what `_read_operations` does for a group, whose coordinator may have to load first."""
    for pause in LOADING.delays():
        asked = admin.ask(
            lambda client: client.describe_consumer_groups(
                [group], include_authorized_operations=True, request_timeout=CHECK_SECONDS
            )
        )
        try:
            return _read_operations(asked[group])
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
                return set()
            if code not in _LOADING_CODES or pause >= LOADING.longest:
                raise ConnectionError(f"group {group} can't be described: {error.args[0].str()}") from error
        time.sleep(pause)
    raise AssertionError("the delays do not end")


def _read_operations(answer: Future[Any]) -> set[AclOperation] | None:
    """Return the operations that the user may do, or None if the brokers can't tell."""
    try:
        allowed = answer.result(2 * CHECK_SECONDS).authorized_operations
    except KafkaException as error:
        if error.args[0].code() in _CANT_TELL:
            return None
        raise
    return set(allowed) if allowed is not None else None


def _lacks(user: str | None, operation: str, kind: str, name: str) -> str:
    if user is None:
        return f"the AWS role of this process may not {operation} {kind} {name}: allow it in the role's IAM policy"
    principal = shlex.quote(f"User:{user}")
    return (
        f"the Kafka user {user} may not {operation} {kind} {name}: run "
        f"`kafka-acls.sh --add --allow-principal {principal} --operation {operation.title()} --{kind} {name}`"
    )
