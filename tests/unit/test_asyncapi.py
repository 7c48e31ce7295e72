"""docs/asyncapi.yaml agrees with the code."""

import hashlib
import json
import re
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import KafkaError

from config.events import ExportFinished, ExportRequested, read_finished, read_request
from config.labels import Verdict
from config.settings import Settings
from consumer.guards import GuardPolicy, Reaction, Refusal, enabled, exists
from runtime.dead_letters import PREFIX, ReceivedMessage, dead_letter
from runtime.kafka_records import Unreadable
from runtime.publisher import Outgoing
from tests.support.exports import NOW
from tests.support.intake import FakePublisher

DOCUMENT = yaml.safe_load((Path(__file__).parents[2] / "docs" / "asyncapi.yaml").read_text())
MESSAGES, SCHEMAS = DOCUMENT["components"]["messages"], DOCUMENT["components"]["schemas"]
READERS = {"exportRequested": read_request, "exportFinished": read_finished}
DESCRIPTIVE = {"title", "description"}


def resolve(node: Any) -> Any:
    """Replace every reference in a part of the document by what it names."""
    if isinstance(node, list):
        return [resolve(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target: Any = DOCUMENT
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        return resolve({**target, **{name: each for name, each in node.items() if name != "$ref"}})
    return {name: resolve(each) for name, each in node.items()}


def normalize(schema: Any, *, named: bool = False) -> Any:
    """Remove descriptions from a schema, and write "or null" in one way."""
    if isinstance(schema, list):
        return sorted(schema) if all(isinstance(each, str) for each in schema) else [normalize(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "anyOf" in schema:
        one, null = schema["anyOf"]
        assert null == {"type": "null"}
        return normalize({**one, "type": [one["type"], "null"]})
    kept = {name: each for name, each in schema.items() if named or name not in DESCRIPTIVE}
    return {name: normalize(each, named=name == "properties") for name, each in kept.items()}


@pytest.mark.parametrize("model", [ExportRequested, ExportFinished])
def test_the_schema_of_an_event_equals_that_of_its_model(model: type[ExportRequested | ExportFinished]) -> None:
    generated = model.model_json_schema(by_alias=True, mode="serialization")

    assert normalize(resolve(SCHEMAS[model.__name__])) == normalize(generated)


@pytest.mark.parametrize(
    ("name", "payload"),
    [(name, each["payload"]) for name in READERS for each in MESSAGES[name]["examples"]],
)
def test_every_example_is_a_valid_event(name: str, payload: dict[str, Any]) -> None:
    event = READERS[name](json.dumps(payload).encode())

    assert json.loads(event.encode()) == payload


def test_the_version_equals_that_of_the_package() -> None:
    assert DOCUMENT["info"]["version"] == version("waybill")


def test_the_topics_equal_the_defaults_of_the_settings() -> None:
    settings = Settings()
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}

    assert addresses == {settings.requests_topic, settings.completions_topic, settings.dead_letter_topic}


def publish_dead_letter(*answers: KafkaError, unreadable: Unreadable | None = None) -> Outgoing:
    """Return the last message that is published for a dead letter when Kafka gives these answers."""
    publisher = FakePublisher(answers=list(answers))
    received = ReceivedMessage(
        topic="export-requests",
        partition=3,
        offset=7,
        key=b"k",
        value=b"x" * 100_000,
        headers=(),
        unreadable=unreadable,
    )
    dead_letter(publisher, "dlq", received, verdict=Verdict.MALFORMED, reason="why", now=NOW)  # type: ignore[arg-type] # stands in for Kafka
    return publisher.sent[-1]


def test_a_dead_letter_has_exactly_the_described_headers() -> None:
    schema = SCHEMAS["DeadLetterHeaders"]
    damaged = Unreadable(b"", reason="why", first=5, content="batch")
    whole = publish_dead_letter()
    cut = publish_dead_letter(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), unreadable=damaged)

    for published, names in ((whole, set(schema["required"])), (cut, set(schema["properties"]))):
        headers = {name: (value or b"").decode() for name, value in published.headers}
        assert set(headers) == names
        assert all(name.startswith(PREFIX) for name in headers)
        for name, text in headers.items():
            assert re.search(schema["properties"][name].get("pattern", ""), text)
    assert dict(cut.headers)["waybill-sha256"] == hashlib.sha256(b"x" * 100_000).hexdigest().encode()
    assert f"{len(cut.value or b'') >> 10} KiB" in MESSAGES["deadLetter"]["payload"]["description"]


def test_every_error_class_of_dead_letters_is_described() -> None:
    refusals = [enabled(GuardPolicy(enabled=False, stale_after=timedelta(days=1), max_attempts=1)), exists(None)]
    dead_lettered = {
        each.verdict
        for each in refusals
        if isinstance(each, Refusal) and each.reaction in {Reaction.DEAD_LETTER, Reaction.LOOK_AGAIN}
    }

    named = SCHEMAS["DeadLetterHeaders"]["properties"]["waybill-error-class"]["enum"]

    assert set(named) == dead_lettered | {Verdict.MALFORMED, Verdict.UNREADABLE, Verdict.BUG}
