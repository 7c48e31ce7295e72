"""Opens the channels besides email that the settings name."""

from config.labels import Channel
from config.secret_keys import read_signing_secrets
from config.settings import Settings
from config.settings_channels import SLACK_URL, WEBHOOK_URL, read_networks
from notify.receiver import Receiver
from notify.slack import Slack
from notify.webhook import Webhook


def list_channels(settings: Settings) -> tuple[Channel, ...]:
    """Return the channels that get a notice of each completion.

    Email is always one of them: without its settings, its notices are skipped.
    """
    others = {Channel.WEBHOOK: settings.webhook_url, Channel.SLACK: settings.slack_webhook_url}
    return (Channel.MAIL, *(channel for channel, url in others.items() if url is not None))


def open_webhook(settings: Settings) -> Webhook | None:
    """Return the webhook, or None if it is not set."""
    url, secret = settings.webhook_url, settings.webhook_secret
    if url is None or secret is None:
        return None
    receiver = Receiver(url.get_secret_value(), WEBHOOK_URL, read_networks(settings.webhook_allowed_networks))
    return Webhook(receiver, read_signing_secrets(secret), with_link=settings.webhook_link)


def open_slack(settings: Settings) -> Slack | None:
    """Return the channel in Slack, or None if it is not set."""
    url = settings.slack_webhook_url
    if url is None:
        return None
    return Slack(Receiver(url.get_secret_value(), SLACK_URL, read_networks(settings.webhook_allowed_networks)))
