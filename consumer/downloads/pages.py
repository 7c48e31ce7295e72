"""Renders the page that a user sees when a download link leads to no file."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from config.labels import NoFile
from config.links import make_exports_page
from consumer.downloads.locate import NoDownload


@dataclass(frozen=True)
class Page:
    """The texts of one page, and its HTTP status.

    Where `again` is true, the page offers to start the export again; `after` follows that offer.
    """

    status: int
    title: str
    text: str = ""
    again: bool = False
    after: str = ""


REASON_LIMIT = 1000
"""In characters, as in the emails."""
FAILS_AGAIN = "If it fails again, contact your administrator."
PAGES = {
    NoFile.INVALID: Page(404, "This link is not valid", "Check that you copied the whole link."),
    NoFile.EXPIRED: Page(410, "This link has expired", again=True),
    NoFile.CANCELLED: Page(410, "This export was cancelled", "There is no file.", again=True),
    NoFile.FAILED: Page(410, "This export failed", "There is no file.", again=True, after=FAILS_AGAIN),
    NoFile.GONE: Page(404, "This file no longer exists", "It was deleted.", again=True),
    NoFile.NOT_READY: Page(404, "This export is not ready yet", "Open the link again later."),
    NoFile.LIMITED: Page(429, "Too many requests", "Wait a moment, then open the link again."),
    NoFile.UNAVAILABLE: Page(503, "The file is temporarily unavailable", "Open the link again in a minute."),
}


def render(missing: NoDownload, langfuse_url: str | None, project_id: str | None = None) -> str:
    """Return the page as HTML; the reason is escaped.

    `langfuse_url` is where an export can be started again, `project_id` the project of the link, if it is valid.
    """
    context = {
        "style": _style(),
        "page": PAGES[missing.why],
        "reason": _to_sentence(missing.reason or ""),
        "langfuse_url": langfuse_url,
        "exports_page": make_exports_page(langfuse_url, project_id) if langfuse_url and project_id else None,
    }
    return _templates().get_template("page.html").render(context)


def _to_sentence(reason: str) -> str:
    """Return the reason with up to REASON_LIMIT characters, and with a full stop."""
    text = reason.strip()
    if len(text) > REASON_LIMIT:
        return f"{text[: REASON_LIMIT - 1].rstrip()}…"
    return f"{text}." if text[-1:].isalnum() else text


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
