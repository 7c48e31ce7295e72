"""The variables of Langfuse for stores other than S3: exports, links, the doctor, and sentences for wrong values."""

import hashlib
import json
import urllib.request
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from config.tables import batch_exports
from tests.e2e.requests import QUICK, insert_export, publish_request, read_status
from tests.services.stacks import Stack
from tests.support.daemons import daemon, eventually, waybill

pytestmark = pytest.mark.slow

ENOUGH = {
    "DATABASE_URL": "sqlite:////tmp/not-opened.db",
    "CLICKHOUSE_URL": "http://127.0.0.1:9",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
}


@pytest.mark.parametrize("service", ["azure", "gcs"])
def test_an_export_goes_to_the_store_of_langfuses_variables(
    request: pytest.FixtureRequest, service: str, stack: Stack, sample_data: Engine, tmp_path: Path
) -> None:
    with request.getfixturevalue(service).bucket() as place:
        environment = stack.environment() | QUICK | {"WAYBILL_STORAGE_URL": ""} | place.environment()
        report = json.loads(waybill("doctor", "--json", environment=environment).stdout)
        with daemon("consumer", tmp_path, environment):
            export_id = insert_export(sample_data)
            publish_request(stack, export_id)
            eventually(lambda: read_status(sample_data, export_id) == "COMPLETED", what="the export completes")
        with sample_data.connect() as connection:
            url = connection.scalar(select(batch_exports.c.url).where(batch_exports.c.id == export_id))
        key, manifest_key = sorted(place.objects())
        manifest = json.loads(place.read(manifest_key))
        with urllib.request.urlopen(str(url)) as answer:
            data, name = answer.read(), answer.headers["Content-Disposition"]

    assert report["storage"] == "ok"
    assert (len(data), hashlib.sha256(data).hexdigest()) == (manifest["bytes"], manifest["sha256"])
    assert name == f'attachment; filename="{key}"'


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"LANGFUSE_USE_OCI_NATIVE_OBJECT_STORAGE": "true"},
            "LANGFUSE_USE_OCI_NATIVE_OBJECT_STORAGE: OCI's native API is not",
        ),
        (
            {"LANGFUSE_USE_AZURE_BLOB": "true", "LANGFUSE_USE_GOOGLE_CLOUD_STORAGE": "true"},
            "LANGFUSE_USE_AZURE_BLOB and LANGFUSE_USE_GOOGLE_CLOUD_STORAGE are both true",
        ),
        ({"LANGFUSE_USE_AZURE_BLOB": "true"}, "LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID is missing"),
        ({"WAYBILL_STORAGE_URL": "nonsense://x"}, "WAYBILL_STORAGE_URL: fsspec knows no filesystem"),
    ],
)
def test_a_store_that_cant_be_right_ends_the_consumer_with_a_sentence(given: dict[str, str], sentence: str) -> None:
    bucket = {} if "WAYBILL_STORAGE_URL" in given else {"LANGFUSE_S3_BATCH_EXPORT_BUCKET": "exports"}
    ended = waybill("consumer", environment=ENOUGH | bucket | given)

    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
