"""Emails and link pages in a browser: on narrow and wide screens, light and dark."""

from datetime import timedelta
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page

from config.events import Status
from config.labels import NoFile
from consumer.downloads.locate import NoDownload
from consumer.downloads.pages import PAGES, render
from notify.address import EmailAddress
from notify.compose import EmailContent, compose_email
from notify.language import read_language
from notify.look import Look
from notify.templating import Templates
from tests.services import chromium
from tests.support.notices import NOW, SENDER, URL, completion

pytestmark = pytest.mark.slow

GERMAN = read_language("de")
LOOKS = {
    "plain": Look(),
    "branded": Look(Templates(GERMAN), GERMAN, brand="Ünited Data", accent="#ffd400", footer="Ünited Data, Berlin"),
}
LONG = "x" * 300
EVENTS: list[dict[str, Any]] = [{"truncated": True}, {"status": Status.FAILED, "error": LONG}]
CONTENT = EmailContent(
    recipient=EmailAddress("ada", "example.com"),
    user_name="Ada Lovelace",
    export_name=LONG,
    url=URL,
    page="https://langfuse.example/project/project-1/settings/exports",
    expires_at=NOW + timedelta(hours=24),
    ignored=LONG,
)
screens = pytest.mark.parametrize("width", [360, 800])
schemes = pytest.mark.parametrize("scheme", ["light", "dark"])


def show(browser: Browser, html: str, width: int, scheme: Literal["light", "dark"]) -> Page:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_content(html)
    return page


def check(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("window.innerWidth")
    assert chromium.find_faults(page) == []


@screens
@schemes
@pytest.mark.parametrize("look", LOOKS)
def test_an_email_fits_the_screen_and_can_be_read_by_everybody(
    browser: Browser, look: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    for event in EVENTS:
        message = compose_email(completion(**event), CONTENT, sender=SENDER, now=NOW, look=LOOKS[look])
        body = message.get_body(("html",))
        assert body is not None
        page = show(browser, body.get_content(), width, scheme)
        check(page)
        button = page.locator(".button").bounding_box()
        assert button is not None
        assert button["height"] >= 44
        page.context.close()


@screens
@schemes
def test_a_link_page_fits_the_screen_and_can_be_read_by_everybody(
    browser: Browser, width: int, scheme: Literal["light", "dark"]
) -> None:
    for why in PAGES:
        missing = NoDownload(why=why, reason=LONG if why is NoFile.FAILED else None)
        page = show(browser, render(missing, "https://langfuse.example", "project-1"), width, scheme)
        check(page)
        page.context.close()
