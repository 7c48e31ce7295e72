import pytest

from cli.checks.channels import Unused, find_problems
from config.settings import load
from tests.services.process import free_port
from tests.support.webhooks import SECRET, webhook_receiver


def test_without_a_webhook_and_slack_there_is_nothing_to_check() -> None:
    with pytest.raises(Unused, match="WAYBILL_WEBHOOK_URL and WAYBILL_SLACK_WEBHOOK_URL are not set"):
        find_problems(load({}))


def test_each_receiver_that_can_not_be_reached_is_a_problem() -> None:
    with webhook_receiver() as receiver:
        values = {
            "WAYBILL_WEBHOOK_URL": receiver.url,
            "WAYBILL_WEBHOOK_SECRET": SECRET,
            "WAYBILL_SLACK_WEBHOOK_URL": f"http://127.0.0.1:{free_port()}/hush",
        }
        (closed,) = find_problems(load(values | {"WAYBILL_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}))
        refused = find_problems(load(values))

    assert closed.startswith("the receiver of WAYBILL_SLACK_WEBHOOK_URL is unavailable (connection refused)")
    assert [each.partition(" can't be used")[0] for each in refused] == [
        "the receiver of WAYBILL_WEBHOOK_URL",
        "the receiver of WAYBILL_SLACK_WEBHOOK_URL",
    ]
    assert receiver.requests == []
