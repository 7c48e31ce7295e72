from typing import Any

import pytest

from cli.admin import effective_settings
from config.settings import Misconfigured, load
from tests.support.webhooks import OTHER_SECRET, SECRET

WEBHOOK = {"WAYBILL_WEBHOOK_URL": "https://receiver.example.com/in?token=hush", "WAYBILL_WEBHOOK_SECRET": SECRET}
SLACK = {"WAYBILL_SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/hush"}
NETWORKS = "WAYBILL_WEBHOOK_ALLOWED_NETWORKS"


def problems(values: dict[str, str]) -> list[str]:
    with pytest.raises(Misconfigured) as raised:
        load(values)
    return raised.value.problems


def test_urls_and_secrets_are_masked() -> None:
    settings = load(WEBHOOK | SLACK)

    shown = effective_settings(settings)

    for name in (*WEBHOOK, *SLACK):
        assert shown[name] == "**********"
    assert "hush" not in repr(settings) + str(shown)
    assert SECRET not in repr(settings) + str(shown)


@pytest.mark.parametrize("name", ["WAYBILL_WEBHOOK_URL", "WAYBILL_SLACK_WEBHOOK_URL"])
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("hooks.example.com/hush", "must start with http:// or https://"),
        ("ftp://example.com/hush", "must start with http:// or https://"),
        ("file:///etc/passwd#hush", "must start with http:// or https://"),
        ("https://", "has no host"),
        ("https://example.com:99999/hush", "has a port"),
        ("https://user:hush@example.com", "contains a user"),
        ("https://example.com/hush#a", "has a fragment"),
        ("https://example.com/hush\r\nX-Evil: 1", "not allowed in a URL"),
        ("https://example.com/hush here", "not allowed in a URL"),
        ("https://example.com\\@127.0.0.1/hush", ""),
        ("https://exa\u3002mple.com/hush", ""),
    ],
)
def test_a_url_that_can_not_be_used_is_named_without_its_text(name: str, url: str, why: str) -> None:
    (problem,) = problems(WEBHOOK | SLACK | {name: url})

    assert problem.startswith(f"{name}: ")
    assert why in problem
    assert "hush" not in problem


@pytest.mark.parametrize("given", [SECRET, f"{SECRET},{OTHER_SECRET}", f"{SECRET}, {OTHER_SECRET}"])
def test_one_or_several_secrets_are_accepted(given: str) -> None:
    assert load(WEBHOOK | {"WAYBILL_WEBHOOK_SECRET": given}).webhook_secret is not None


@pytest.mark.parametrize(
    "given",
    [
        SECRET.removeprefix("whsec_"),
        "whsec_",
        "whsec_aGVpbQ==",
        "whsec_" + "h" * 31,
        "whsec_" + "h" * 200,
        "whsec_not base64 at all, heim",
        f"{SECRET},",
        "whsk_" + SECRET.removeprefix("whsec_"),
    ],
)
def test_a_secret_that_standard_webhooks_does_not_allow_is_named_without_its_text(given: str) -> None:
    (problem,) = problems(WEBHOOK | {"WAYBILL_WEBHOOK_SECRET": given})

    assert problem.startswith("WAYBILL_WEBHOOK_SECRET: each secret must be whsec_ and then 24 to 64 random bytes")
    assert SECRET.removeprefix("whsec_") not in problem
    assert "heim" not in problem


@pytest.mark.parametrize("missing", WEBHOOK)
def test_url_and_secret_of_the_webhook_require_each_other(missing: str) -> None:
    (other,) = WEBHOOK.keys() - {missing}

    assert problems({other: WEBHOOK[other]}) == [f"{missing} is missing: {other} requires it"]


def test_a_setting_that_is_no_secret_requires_none() -> None:
    assert load({"WAYBILL_WEBHOOK_LINK": "true", NETWORKS: "10.0.0.0/8, fd00::/8"}).webhook_link


@pytest.mark.parametrize("given", ["10.0.0.1/8", "10.0.0.0/33", "all", "10.0.0.0/8;fd00::/8", "localhost"])
def test_a_network_that_is_none_is_named(given: Any) -> None:
    (problem,) = problems({NETWORKS: given})

    assert problem.startswith(f"{NETWORKS}: {given!r} is not a network: use 10.1.2.0/24")
