"""The link in the email, as its recipient sees it."""

import hashlib
import json
import re
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError

import pytest
from sqlalchemy import Engine, select, update

from config.tables import batch_exports
from tests.e2e.requests import QUICK, insert_export, publish_request, read_status
from tests.services.mail import Mail
from tests.services.process import free_port
from tests.services.stacks import Stack
from tests.support.daemons import daemon, eventually, waybill

pytestmark = pytest.mark.slow

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def environment(stack: Stack) -> dict[str, str]:
    """Settings with which the consumer serves at the address of the links."""
    port = free_port()
    public = {"WAYBILL_PUBLIC_URL": f"http://127.0.0.1:{port}", "WAYBILL_SECRET_KEY": KEY}
    return stack.environment() | QUICK | public | {"CONSUMER_PORT": str(port)}


@pytest.fixture
def consumer(environment: dict[str, str], sample_data: Engine, tmp_path: Path) -> Iterator[dict[str, str]]:  # noqa: ARG001 (the data comes first)
    with daemon("consumer", tmp_path, environment | {"WAYBILL_HTTP_PORT": environment["CONSUMER_PORT"]}):
        yield environment


def button(email: Mail) -> str:
    html = email.message.get_body(("html",))
    assert html is not None
    found = re.search(r'class="button" href="([^"]+)"', html.get_content())
    assert found is not None
    return found[1]


def page(url: str) -> tuple[int, str]:
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(url, timeout=30)
    with caught.value as answer:
        return answer.code, answer.read().decode()


def test_the_button_of_the_email_downloads_the_file_until_it_expires_or_is_cancelled(
    stack: Stack,
    consumer: dict[str, str],
    sample_data: Engine,
    tmp_path: Path,
) -> None:
    with daemon("notify", tmp_path, consumer):
        export_id = insert_export(sample_data)
        publish_request(stack, export_id)
        eventually(lambda: read_status(sample_data, export_id) == "COMPLETED", what="the export completes")
        (email,) = eventually(stack.mails, what="an email arrives")
    link = button(email)
    shown = json.loads(waybill("show", "demo", export_id, "--json", environment=consumer).stdout)
    manifest = json.loads(stack.read(max(stack.objects())))

    for _ in range(2):
        with urllib.request.urlopen(link, timeout=60) as answer:
            data = answer.read()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (manifest["bytes"], manifest["sha256"])
    assert link == shown["link"]
    assert link.startswith(f"{consumer['WAYBILL_PUBLIC_URL']}/d/")
    assert not any(each in link for each in ("demo", export_id))
    with sample_data.connect() as connection:
        url = connection.scalar(select(batch_exports.c.url).where(batch_exports.c.id == export_id))
    assert url == shown["url"] != link

    change(sample_data, export_id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert page(link) == (410, page(link)[1])
    assert "This link has expired" in page(link)[1]
    change(sample_data, export_id, status="CANCELLED")
    assert "This export was cancelled" in page(link)[1]
    assert page(link[:-1])[0] == 404
    token = link.rpartition("/")[2]
    assert not [each for each in tmp_path.glob("*.log") if token in each.read_text()]


def test_the_link_of_a_waiting_export_shows_its_page_until_it_is_cancelled(
    consumer: dict[str, str],
    sample_data: Engine,
) -> None:
    # Too young for the sweeper, and without a request event.
    export_id = insert_export(sample_data, created_at=datetime.now(UTC) + timedelta(hours=1))
    link = json.loads(waybill("show", "demo", export_id, "--json", environment=consumer).stdout)["link"]

    assert "not ready yet" in page(link)[1]
    assert waybill("cancel", "demo", export_id, environment=consumer).returncode == 0
    assert page(link)[0] == 410
    assert "was cancelled" in page(link)[1]


def test_a_link_works_while_kafka_and_clickhouse_are_down(
    stack: Stack, environment: dict[str, str], sample_data: Engine, tmp_path: Path
) -> None:
    with daemon("consumer", tmp_path, environment):
        export_id = insert_export(sample_data)
        publish_request(stack, export_id)
        eventually(lambda: read_status(sample_data, export_id) == "COMPLETED", what="the export completes")
    link = json.loads(waybill("show", "demo", export_id, "--json", environment=environment).stdout)["link"]
    nowhere = f"127.0.0.1:{free_port()}"
    down = {"KAFKA_BOOTSTRAP_SERVERS": nowhere, "CLICKHOUSE_URL": f"http://{nowhere}"}
    port = {"WAYBILL_HTTP_PORT": environment["CONSUMER_PORT"]}

    with daemon("consumer", tmp_path, environment | down | port, wait=False) as consumer:
        status, body = consumer.get("/readyz")
        with urllib.request.urlopen(link, timeout=60) as answer:
            data = answer.read()

    dependencies = json.loads(body)["dependencies"]
    assert status == 503
    assert {name for name, why in dependencies.items() if why != "ok"} == {"kafka", "clickhouse"}
    assert hashlib.sha256(data).hexdigest() == json.loads(stack.read(max(stack.objects())))["sha256"]


def test_the_port_of_the_links_says_nothing_about_the_servers(consumer: dict[str, str]) -> None:
    for path in ("/metrics", "/livez", "/readyz", "/", "/d/"):
        assert page(f"{consumer['WAYBILL_PUBLIC_URL']}{path}")[0] == 404


def change(engine: Engine, export_id: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(update(batch_exports).where(batch_exports.c.id == export_id).values(**values))
