"""Writes the message about a finished export for a channel in Slack."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from config.events import ExportFinished, Status
from notify.compose import ID_LIMIT, NAME_LIMIT, NO_REASON, REASON_LIMIT
from notify.formatting import end_sentence, format_rows, format_size, one_line
from notify.receiver import Receiver


@dataclass(frozen=True)
class Slack:
    """The incoming webhook of a channel in Slack."""

    receiver: Receiver

    def send(self, event: ExportFinished, export_name: str, page: str | None, fence: Callable[[], None]) -> None:
        """Send the message; `fence` is called right before, and raises to prevent that. Raises what `post` raises.

        It links to the exports page of Langfuse, which asks for a login, and never to the file: everyone in the
        channel can read the message.
        """
        body = write_message(event, export_name, page)
        fence()
        self.receiver.post(body, {})


def write_message(event: ExportFinished, export_name: str, page: str | None) -> bytes:
    """Return the message as JSON: plain text, in which names and reasons can't be mentions, formats or named links."""
    text = "\n".join(_list_lines(event, export_name, page))
    # Slack's own escapes: without `<`, nothing is a mention or a link with another text.
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return json.dumps({"text": escaped, "mrkdwn": False, "unfurl_links": False, "unfurl_media": False}).encode()


def _list_lines(event: ExportFinished, export_name: str, page: str | None) -> list[str]:
    name, project = one_line(export_name, limit=NAME_LIMIT), one_line(event.project_id, limit=ID_LIMIT)
    if event.status == Status.FAILED:
        reason = end_sentence(one_line(event.error, limit=REASON_LIMIT) or NO_REASON)
        lines = [f'Data export "{name}" of project {project} failed, so no file was created. Reason: {reason}']
    else:
        size = f"{format_rows(event.rows)}, {one_line(event.format, limit=NAME_LIMIT)}, {format_size(event.bytes)}"
        lines = [f'Data export "{name}" of project {project} is ready: {size}.']
        if event.truncated:
            lines.append(
                f"The file is incomplete: it contains the first {format_rows(event.rows)}, the limit for one export."
            )
    return [*lines, *([f"Exports of the project: {page}"] if page is not None else [])]
