"""Renders the page that a user sees when a download link leads to no file."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from config.labels import NoFile
from consumer.downloads.locate import NoDownload


@dataclass(frozen=True)
class Page:
    """The texts of one page, and its HTTP status."""

    status: int
    title: str
    text: str


START_AGAIN = "You can start the export again in Langfuse."
PAGES = {
    NoFile.INVALID: Page(404, "This link is not valid", "Check that you copied all of it."),
    NoFile.EXPIRED: Page(410, "This link has expired", START_AGAIN),
    NoFile.CANCELLED: Page(410, "This export was cancelled", f"There is no file. {START_AGAIN}"),
    NoFile.FAILED: Page(410, "This export failed", f"There is no file. {START_AGAIN}"),
    NoFile.GONE: Page(404, "This file no longer exists", f"It was deleted. {START_AGAIN}"),
    NoFile.NOT_READY: Page(404, "This export is not ready yet", "You will get an email when it is ready."),
    NoFile.LIMITED: Page(429, "Too many requests", "Wait a moment, then open the link again."),
    NoFile.UNAVAILABLE: Page(503, "The file is temporarily unavailable", "Open the link again in a minute."),
}


def render(missing: NoDownload) -> str:
    """Return the page as HTML; the reason is escaped."""
    page = PAGES[missing.why]
    context = {"style": _style(), "title": page.title, "text": page.text, "reason": missing.reason}
    return _templates().get_template("page.html").render(context)


@cache
def content_security_policy() -> str:
    """Return a policy that allows the page's own style and nothing else."""
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
