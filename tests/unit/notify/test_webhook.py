import base64
import json
import os
import re
import string
import time
from typing import Any

import pytest

from config.events import Status
from notify.receiver import Receiver
from notify.webhook import Webhook, message_id, sign, write_body
from tests.support.documents import ROOT
from tests.support.notices import NOW, completion
from tests.support.webhooks import OTHER_SECRET, SECRET, NotVerified, verify

# The known answer that the libraries of Standard Webhooks are tested with.
KNOWN_SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KNOWN_ID, KNOWN_TIME, KNOWN_BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}'
KNOWN_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


def test_a_signature_is_the_known_answer() -> None:
    headers = sign((key(KNOWN_SECRET),), KNOWN_ID, KNOWN_TIME, KNOWN_BODY)

    assert headers == {
        "webhook-id": KNOWN_ID,
        "webhook-timestamp": str(KNOWN_TIME),
        "webhook-signature": KNOWN_SIGNATURE,
    }
    assert verify(headers, KNOWN_BODY, f"whsec_{KNOWN_SECRET}", KNOWN_TIME) == {"test": 2432232314}


@pytest.mark.parametrize(
    "change",
    [{"webhook-id": "msg_other"}, {"webhook-timestamp": str(KNOWN_TIME + 1)}, {"webhook-signature": "v1,AAAA"}],
)
def test_a_message_that_was_changed_is_not_verified(change: dict[str, str]) -> None:
    headers = sign((key(SECRET),), KNOWN_ID, KNOWN_TIME, KNOWN_BODY)

    with pytest.raises(NotVerified):
        verify(headers | change, KNOWN_BODY, SECRET, KNOWN_TIME)
    with pytest.raises(NotVerified):
        verify(headers, KNOWN_BODY + b" ", SECRET, KNOWN_TIME)
    with pytest.raises(NotVerified):
        verify(headers, KNOWN_BODY, SECRET, KNOWN_TIME + 301)


def test_while_keys_are_rotated_receivers_with_either_key_verify_the_message() -> None:
    headers = sign((key(SECRET), key(OTHER_SECRET)), KNOWN_ID, KNOWN_TIME, KNOWN_BODY)

    for secret in (SECRET, OTHER_SECRET):
        verify(headers, KNOWN_BODY, secret, KNOWN_TIME)
    with pytest.raises(NotVerified):
        verify(headers, KNOWN_BODY, "whsec_" + base64.b64encode(os.urandom(32)).decode(), KNOWN_TIME)


def test_the_body_is_the_event_with_its_type_and_time() -> None:
    body = json.loads(write_body(completion(), {}))

    assert (body["type"], body["timestamp"]) == ("export.completed", "2026-10-01T14:05:00Z")
    assert body["data"] == json.loads(completion().encode())
    assert json.loads(write_body(completion(status=Status.FAILED), {}))["type"] == "export.failed"


@pytest.mark.parametrize("event_id", ["event-1", "a\r\nx-evil: 1", "a.b", "日本", "x" * 512, "\ud800"[:0] + "é"])
def test_the_id_of_a_message_is_safe_in_a_header_and_has_no_full_stop(event_id: str) -> None:
    made = message_id(event_id)

    assert made == message_id(event_id) != message_id(f"{event_id}2")
    assert set(made) <= {*string.ascii_letters, *string.digits, "_"}


def test_no_secret_is_in_the_repr() -> None:
    webhook = Webhook(Receiver("https://example.com/token-of-it", "WAYBILL_WEBHOOK_URL"), (key(SECRET),))

    assert "token-of-it" not in repr(webhook)
    assert repr(key(SECRET))[2:-1] not in repr(webhook)


def test_nothing_is_sent_when_the_lease_was_lost() -> None:
    webhook = Webhook(Receiver("https://example.com", "WAYBILL_WEBHOOK_URL"), (key(SECRET),))

    def fence() -> None:
        raise LookupError("another notifier has taken the notice over")

    with pytest.raises(LookupError):
        webhook.send(completion(), None, NOW, fence)


def example(language: str) -> str:
    (found,) = re.findall(
        rf"^```{language}\n(.*?)^```$", (ROOT / "docs/webhooks.md").read_text(), re.DOTALL | re.MULTILINE
    )
    return str(found)


def test_the_example_of_the_documents_is_a_message() -> None:
    shown = json.loads(example("json"))
    written = json.loads(write_body(completion(), {}))

    assert shown.keys() == written.keys()
    assert shown["data"].keys() == written["data"].keys()


def test_the_receiver_of_the_documents_verifies_a_message() -> None:
    names: dict[str, Any] = {}
    exec(example("python"), names)
    body = write_body(completion(), {})
    now = int(time.time())

    both = sign((key(OTHER_SECRET), key(SECRET)), message_id("event-1"), now, body)

    assert names["is_genuine"](both, body, SECRET)
    assert not names["is_genuine"](both, body + b" ", SECRET)
    assert not names["is_genuine"](both, body, f"whsec_{KNOWN_SECRET}")
    assert not names["is_genuine"](sign((key(SECRET),), "msg_1", now - 301, body), body, SECRET)
