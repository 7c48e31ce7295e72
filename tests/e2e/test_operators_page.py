"""The operators' page of a running consumer, in a browser."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect
from sqlalchemy import Engine

from tests.e2e.test_consumer import consumer, event, publish, queue_export, wait_for_status
from tests.services import chromium
from tests.services.process import accepts, free_port
from tests.services.stacks import Stack
from tests.support.daemons import PATIENCE, Daemon, daemon, eventually
from tests.support.exports import row_of
from tests.support.openapi import check_answer
from tests.support.operators import BEARER, TOKEN

pytestmark = pytest.mark.slow

MILLISECONDS = 1000 * PATIENCE
SLEEP = "sleep-300"
SCRIPT = '<img src=x onerror="document.title = 1"><script>document.title = 2</script>\'"&'


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser; the test fails if a script of it fails or breaks the policy."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(MILLISECONDS)
    faults: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # The browser also notes each answer that is a refusal.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            faults.append(message.text)

    opened.on("console", note)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    expect.set_options(timeout=MILLISECONDS)
    yield opened
    opened.close()
    assert faults == []


@pytest.fixture
def running(stack: Stack, engine: Engine, tmp_path: Path) -> Iterator[Daemon]:  # noqa: ARG001 (the tables come first)
    with consumer(stack, tmp_path, WAYBILL_OPERATOR_TOKEN=TOKEN, WAYBILL_LEASE_SECONDS="30") as started:
        yield started


def open_page(page: Page, running: Daemon) -> None:
    page.goto(running.url)
    expect(page.locator("#updated")).to_contain_text("Updated")


def allow_changes(page: Page) -> None:
    page.get_by_label("Operator token").fill(TOKEN)
    page.get_by_role("button", name="Allow changes").click()
    expect(page.get_by_role("status")).to_contain_text("Changes are allowed")


def test_an_export_is_seen_running_is_cancelled_by_its_button_and_changes_without_a_reload(
    stack: Stack, engine: Engine, running: Daemon, page: Page
) -> None:
    open_page(page, running)
    page.evaluate("document.body.dataset.loaded = 'once'")
    expect(page.locator("#running")).to_contain_text("No exports are running.")
    export_id = queue_export(engine, SLEEP, name="The long one")
    publish(stack, event(export_id))

    row = page.locator("#running").get_by_role("row", name=re.compile(export_id))
    expect(row).to_contain_text("The long one")
    expect(row.get_by_role("button")).to_have_count(0)
    allow_changes(page)
    row.get_by_role("button", name="Cancel The long one").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the export").click()

    ended = page.locator("#endings").get_by_role("row", name=re.compile(export_id))
    expect(ended).to_contain_text("cancelled")
    expect(page.locator("#running")).to_contain_text("No exports are running.")
    expect(page.get_by_role("status")).to_contain_text("Cancelled: The long one")
    assert row_of(engine, export_id)["status"] == "CANCELLED"
    assert page.evaluate("document.body.dataset.loaded") == "once"


def test_a_rejected_export_is_shown_with_its_reason_and_is_retried(
    stack: Stack, engine: Engine, running: Daemon, page: Page
) -> None:
    export_id = queue_export(engine, "reject", name="Wrong")
    publish(stack, event(export_id))
    wait_for_status(engine, export_id, "FAILED")
    open_page(page, running)
    allow_changes(page)

    ended = page.locator("#endings").get_by_role("row", name=re.compile(export_id))
    expect(ended).to_contain_text("The column 'x' is unknown.")
    ended.get_by_role("button", name="Retry Wrong").click()

    expect(page.get_by_role("status")).to_contain_text("Queued again: Wrong")
    expect(page.locator("#endings").get_by_role("row", name=re.compile(export_id))).to_have_count(2)


def test_texts_of_users_are_shown_and_never_run(stack: Stack, engine: Engine, running: Daemon, page: Page) -> None:
    export_id = queue_export(engine, "reject", name=SCRIPT, project_id=SCRIPT)
    publish(stack, event(export_id, SCRIPT))
    wait_for_status(engine, export_id, "FAILED")

    open_page(page, running)

    expect(page.locator("#endings").get_by_text(SCRIPT).first).to_be_visible()
    assert page.title() == "Waybill exports"
    assert page.locator("main img, main script").count() == 0


def test_a_wrong_token_is_refused_and_shown(running: Daemon, page: Page) -> None:
    open_page(page, running)
    page.get_by_label("Operator token").fill("x" * 32)
    page.get_by_role("button", name="Allow changes").click()

    expect(page.get_by_role("status")).to_contain_text("The token is wrong")
    expect(page.get_by_label("Operator token")).to_be_focused()


def test_the_page_works_with_the_keyboard_alone(stack: Stack, engine: Engine, running: Daemon, page: Page) -> None:
    export_id = queue_export(engine, SLEEP, name="The long one")
    publish(stack, event(export_id))
    open_page(page, running)
    row = page.locator("#running").get_by_role("row", name=re.compile(export_id))
    expect(row).to_be_visible()

    page.get_by_label("Operator token").focus()
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    button = row.get_by_role("button", name="Cancel The long one")
    expect(button).to_be_visible()
    button.focus()
    # The button keeps the focus while the table is updated.
    for _ in range(2):
        with page.expect_response("**/api/v1/overview"):
            pass
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep the export")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert row_of(engine, export_id)["status"] == "PROCESSING"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.locator("#endings").get_by_role("row", name=re.compile(export_id))).to_contain_text("cancelled")


def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    stack: Stack, engine: Engine, running: Daemon, page: Page
) -> None:
    rejected, sleeping = queue_export(engine, "reject", name="n" * 300), queue_export(engine, SLEEP)
    publish(stack, event(rejected), event(sleeping))
    wait_for_status(engine, rejected, "FAILED")
    wait_for_status(engine, sleeping, "PROCESSING")
    open_page(page, running)
    expect(page.locator("#running").get_by_role("row", name=re.compile(sleeping))).to_be_visible()
    expect(page.locator("#endings").get_by_role("row", name=re.compile(rejected))).to_be_visible()

    assert_good_layout(page)
    allow_changes(page)
    assert_good_layout(page)
    page.get_by_role("button", name="Cancel My export").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert_good_layout(page)


def assert_good_layout(page: Page) -> None:
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for width, scheme in product((360, 1600), schemes):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert chromium.find_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_consumer_that_is_gone_is_reported_over_its_last_state(
    stack: Stack, engine: Engine, tmp_path: Path, browser: Browser
) -> None:
    page = browser.new_page()
    with consumer(stack, tmp_path) as running:
        queue_export(engine, "reject", name="Still here", status="CANCELLED")
        open_page(page, running)
    expect(page.get_by_role("alert")).to_contain_text("Consumer: no response. The data below is from")
    assert chromium.find_faults(page) == []
    page.close()


def test_the_public_port_serves_neither_the_page_nor_the_api(
    stack: Stack,
    engine: Engine,  # noqa: ARG001 (the tables come first)
    tmp_path: Path,
) -> None:
    port = free_port()
    links = {"WAYBILL_PUBLIC_URL": f"http://127.0.0.1:{port}", "WAYBILL_SECRET_KEY": TOKEN}
    environment = stack.environment() | links | {"WAYBILL_OPERATOR_TOKEN": TOKEN, "WAYBILL_HTTP_PORT": str(port)}
    paths = ["/", "/operators.js", "/api/v1/overview", "/api/v1/openapi.yaml", "/api/v1/exports/p/e", "/api/v1/access"]
    with daemon("consumer", tmp_path, environment, wait=False) as running:
        eventually(partial(accepts, port), what="the port of the links is open")
        statuses = {path: read(f"http://127.0.0.1:{port}{path}")[0] for path in paths}
        served = {path: read(running.url + path)[0] for path in paths}

        assert set(statuses.values()) == {404}
        assert served == dict.fromkeys(paths, 200) | {"/api/v1/exports/p/e": 404, "/api/v1/access": 204}


def read(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=BEARER), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_overview_of_a_real_consumer_agrees_with_its_description(
    stack: Stack, engine: Engine, running: Daemon
) -> None:
    export_id = queue_export(engine, SLEEP)
    publish(stack, b"not JSON", event(export_id))
    wait_for_status(engine, export_id, "PROCESSING")
    eventually(lambda: running.metric("waybill_dead_letters_total") == 1, what="the dead letter is published")

    def look() -> bytes | None:
        status, body = read(f"{running.url}/api/v1/overview")
        assert status == 200
        overview = json.loads(body)
        return body if not overview["problems"] and overview["deadLetters"]["total"] == 1 else None

    # On a busy machine, the first overview is made before the first check of the dependencies has ended.
    body = eventually(look, what="every part is read, and the dead letter is listed")
    check_answer("GET", "/api/v1/overview", 200, "application/json", body)
    shown = json.loads(body)
    assert [each["id"] for each in shown["running"]["exports"]] == [export_id]
    assert {each["name"]: each["ok"] for each in shown["dependencies"]} == dict.fromkeys(
        ("database", "storage", "kafka"), True
    )
    (letter,) = shown["deadLetters"]["messages"]
    assert (letter["topic"], letter["errorClass"], letter["key"]) == (
        stack.environment()["WAYBILL_REQUESTS_TOPIC"], "malformed", "key",
    )  # fmt: skip
