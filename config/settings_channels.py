"""Declares the settings of the channels besides email: the webhook and Slack."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings

from config import urls
from config.secret_keys import check_signing_secrets

Network = IPv4Network | IPv6Network

WEBHOOK_URL = "WAYBILL_WEBHOOK_URL"
WEBHOOK_SECRET = "WAYBILL_WEBHOOK_SECRET"  # noqa: S105 (the name of a setting)
SLACK_URL = "WAYBILL_SLACK_WEBHOOK_URL"
ALLOWED_NETWORKS = "WAYBILL_WEBHOOK_ALLOWED_NETWORKS"


def check_receiver(value: SecretStr) -> SecretStr:
    """Return the URL of a receiver as it is; raises ValueError, without a part of the URL, for any other text."""
    url = value.get_secret_value()
    urls.read_http(url)
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("has a character that is not allowed in a URL: is it percent-encoded?")
    if "@" in urlsplit(url).netloc:
        raise ValueError("contains a user: receivers recognize Waybill by the signature")
    if "#" in url:
        raise ValueError("has a fragment (#), which is never sent: remove it")
    return value


def read_networks(value: str) -> tuple[Network, ...]:
    """Return networks that are separated by commas; raises ValueError for any that is not valid."""
    return tuple(_read_network(each.strip()) for each in value.split(",") if each.strip())


def _read_network(given: str) -> Network:
    try:
        return ip_network(given)
    except ValueError:
        raise ValueError(
            f"{given[:60]!r} is not a network: use 10.1.2.0/24 or fd00:1::/64, with commas between several"
        ) from None


def _check_networks(value: str) -> str:
    read_networks(value)
    return value


ReceiverUrl = Annotated[SecretStr, AfterValidator(check_receiver)]


class ChannelSettings(BaseSettings):
    """The receivers of the webhook and of Slack; their URLs are secrets, because some contain a token."""

    webhook_url: ReceiverUrl | None = Field(None, alias=WEBHOOK_URL)
    webhook_secret: Annotated[SecretStr, AfterValidator(check_signing_secrets)] | None = Field(
        None, alias=WEBHOOK_SECRET
    )
    webhook_link: bool = Field(default=False, alias="WAYBILL_WEBHOOK_LINK")
    webhook_allowed_networks: Annotated[str, AfterValidator(_check_networks)] = Field("", alias=ALLOWED_NETWORKS)
    slack_webhook_url: ReceiverUrl | None = Field(None, alias=SLACK_URL)


def find_channel_problems(given: Mapping[str, str]) -> Iterator[str]:
    """Yield one sentence for each of the two settings of the webhook that is set without the other."""
    for name, needed in ((WEBHOOK_URL, WEBHOOK_SECRET), (WEBHOOK_SECRET, WEBHOOK_URL)):
        if given.get(name) and not given.get(needed):
            yield f"{needed} is missing: {name} requires it"
