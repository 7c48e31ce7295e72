"""Finds why the webhook or Slack can't be reached."""

from config.errors import Unavailable
from config.settings import Settings
from config.settings_channels import SLACK_URL, WEBHOOK_URL


class Unused(Exception):
    """No channel besides email is set; the text says by which settings it would be."""


def find_problems(settings: Settings) -> list[str]:
    """Connect to each receiver, but send nothing; raises Unused if there is none."""
    from notify.open_channels import open_slack, open_webhook

    opened = [channel for channel in (open_webhook(settings), open_slack(settings)) if channel is not None]
    if not opened:
        raise Unused(f"{WEBHOOK_URL} and {SLACK_URL} are not set: emails are the only channel")
    problems = []
    for channel in opened:
        try:
            channel.receiver.check()
        except Unavailable as error:
            problems.append(str(error))
    return problems
