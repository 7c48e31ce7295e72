"""Chooses the URL on the row of a finished export, which Langfuse's screen shows: the store's or Waybill's own."""

from dataclasses import dataclass
from datetime import timedelta

from config.links import Links
from config.settings import SIGV4_MAX_HOURS
from pipeline.spec import ExportSpec
from pipeline.storage import Storage

LONGEST_SIGNED = timedelta(hours=SIGV4_MAX_HOURS)


@dataclass(frozen=True, kw_only=True)
class LinkPolicy:
    """How long links are valid; a link that lives longer than a signed URL can needs `own`."""

    lifetime: timedelta
    own: Links | None = None


def make_url(spec: ExportSpec, key: str, storage: Storage, policy: LinkPolicy) -> str:
    """Return the URL of the file under a key; raises Unavailable."""
    if policy.own is not None and policy.lifetime > LONGEST_SIGNED:
        return policy.own.write(spec.project_id, spec.export_id)
    name = key.rpartition("/")[2]
    return storage.sign(key, min(policy.lifetime, LONGEST_SIGNED), name, spec.encoding.content_type)
