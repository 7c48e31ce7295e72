"""Chooses the link to the file of an export, and the page that a message leads to."""

from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Engine

from config.events import ExportFinished, Status
from config.links import Links, make_exports_page
from notify.formatting import safe_link
from notify.recipient import Recipient, find_recipient
from notify.signature import read_signature

SIGNING_TIME = timedelta(minutes=10)
"""A URL is signed before its export is completed, so it ends a little before the time that the row promises."""


def choose_link(links: Links | None, event: ExportFinished, recipient: Recipient, page: str | None) -> Recipient:
    """Return the recipient with the URL for the email, None for the page, and the time until which it works."""
    if links is not None:
        return replace(recipient, url=links.write(event.project_id, event.batch_export_id))
    signature, promised = read_signature(recipient.url or ""), recipient.expires_at
    if signature is None or promised is None:
        return recipient
    # The credentials of a role end the signature with their session; Langfuse's page signs a new URL for each download.
    if page is not None and (signature.of_session or signature.until < promised - SIGNING_TIME):
        return replace(recipient, url=None)
    # A session whose end was not known when the URL was signed may end before the signature does.
    unsure = signature.of_session and signature.until >= promised - SIGNING_TIME
    return replace(recipient, expires_at=min(signature.until, promised), may_end_early=unsure)


def find_link(engine: Engine, links: Links | None, event: ExportFinished, now: datetime) -> str | None:
    """Return the link to the file of an export, or None if there is none that works now.

    Raises Unavailable when the database fails.
    """
    export = find_recipient(engine, event)
    if export is None or export.status != Status.COMPLETED or event.status != Status.COMPLETED:
        return None
    export = choose_link(links, event, export, None)
    return safe_link(export.url) if export.expires_at is None or export.expires_at > now else None


def find_page(nextauth_url: str | None, project_id: str) -> str | None:
    """Return the URL of the project's exports page in Langfuse."""
    if nextauth_url is None:
        return None
    return safe_link(make_exports_page(nextauth_url, project_id))
