"""Renders the page that a person sees whose download link leads to no file."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from config.labels import NoFile
from consumer.downloads.locate import Refusal


@dataclass(frozen=True)
class Page:
    """What one page says, and its HTTP status."""

    status: int
    title: str
    text: str


START_AGAIN = "You can start the export again in the application."
PAGES = {
    NoFile.INVALID: Page(404, "This link is not valid", "Check that it was copied whole."),
    NoFile.EXPIRED: Page(410, "This link has expired", START_AGAIN),
    NoFile.CANCELLED: Page(410, "This export was cancelled", f"There is no file. {START_AGAIN}"),
    NoFile.FAILED: Page(410, "This export failed", f"There is no file. {START_AGAIN}"),
    NoFile.GONE: Page(404, "This file is gone", f"It was deleted. {START_AGAIN}"),
    NoFile.NOT_READY: Page(
        404, "This export is not ready yet", "Come back a little later; a mail is sent when it is ready."
    ),
    NoFile.LIMITED: Page(429, "Too many requests", "Please wait a moment, then open the link again."),
    NoFile.UNAVAILABLE: Page(503, "The file can't be reached right now", "Please open the link again in a minute."),
}


def render(refusal: Refusal) -> str:
    """Give the page as HTML; the words of a request are escaped."""
    page = PAGES[refusal.why]
    context = {"style": _style(), "title": page.title, "text": page.text, "words": refusal.words}
    return _templates().get_template("page.html").render(context)


@cache
def content_security_policy() -> str:
    """Give the policy under which a page can show its own style, and nothing else can happen."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _style() -> str:
    return _templates().get_template("page.css").render()


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("consumer.downloads"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
