"""Shows the result of the demo: the file, the email, the counters and the memory."""

import email
import email.policy
import hashlib
import shutil
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from rich.markup import escape

from cli.output import console, fail, format_size, print_fields
from config.links import read_links
from config.settings import Settings
from consumer.models import Job


def show_file(job: Job, exports: Path, settings: Settings) -> None:
    """Show the file in the folder of exports, and fetch it through its link."""
    links = read_links(settings)
    if job.run is None or job.run.object_key is None or links is None:
        fail("the export has no file, or no link")
    path, link = exports / job.run.object_key, links.write(job.project_id, job.id)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with urllib.request.urlopen(link) as stream:  # noqa: S310 (a daemon on this machine)
        fetched = hashlib.file_digest(stream, "sha256").hexdigest()
    agrees = "the same in the manifest" if digest == job.run.sha256 else f"BUT {job.run.sha256} in the manifest"
    _heading("The file")
    print_fields(
        {
            "path": path,
            "rows": f"{job.run.rows:,}",
            "bytes": f"{path.stat().st_size:,} ({format_size(path.stat().st_size)})",
            "sha256": f"{digest} ({agrees})",
            "manifest": f"{path}.manifest.json",
            "link": link,
            "fetched": f"through the link, with {'the same' if fetched == digest else 'A DIFFERENT'} sha256",
        }
    )


def show_email(path: Path) -> None:
    """Show the headers and the text of an email."""
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    text = message.get_body(("plain",))
    _heading("The email")
    print_fields({"file": path} | {name: message[name] for name in ("From", "To", "Subject", "Message-ID")})
    console().print()
    console().print(escape(text.get_content().strip() if text else "(no text)"), soft_wrap=True)


def show_counters(metrics: str, peaks: Mapping[str, str]) -> None:
    """Show the counters in the text of the daemons' metrics, and the peak memory of each daemon."""
    _heading("The counters")
    wanted = ("_total{", "_running", "_slots", "last_success")
    for line in metrics.splitlines():
        if line.startswith("waybill_") and any(each in line for each in wanted) and not line.endswith(" 0.0"):
            console().print(escape(line))
    _heading("Peak memory")
    print_fields(peaks)


def _heading(text: str) -> None:
    console().print(f"\n[bold]{text}[/]\n{'─' * min(len(text), shutil.get_terminal_size().columns)}")


def say(text: str) -> None:
    """Say what happens next, on one line, so that commands and paths can be copied."""
    console().print(f"[bold cyan]▸[/] {escape(text)}", soft_wrap=True)
