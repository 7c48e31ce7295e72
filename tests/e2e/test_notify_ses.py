"""The notifier with Amazon SES instead of an SMTP server."""

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.e2e.completions import add_ended_export, notifier, publish, wait_until_ended
from tests.services.stacks import Stack
from tests.support.daemons import waybill
from tests.support.ses_server import ACCOUNT, IDENTITIES, SEND, ses_server


@pytest.mark.slow
def test_emails_are_sent_by_ses_once_it_lets_them_through(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    event, sender = add_ended_export(engine), {"EMAIL_FROM_ADDRESS": "Exports <exports@mail.example.com>"}
    with ses_server() as server:
        server.verify("mail.example.com")
        server.answer(SEND, 429, "TooManyRequestsException", times=2)
        with notifier(stack, tmp_path, **server.environment(), **sender) as running:
            publish(stack, *[event.encode()] * 3)

            assert wait_until_ended(engine, event).state == "sent"
            assert running.metric("waybill_notices_total", outcome="retried") == 2
            assert running.metric("waybill_notices_total", outcome="sent") == 1

        ((source, recipients, message),) = server.sent()
        server.describe(ACCOUNT, SendingEnabled=True, ProductionAccessEnabled=False)
        server.describe(IDENTITIES, VerifiedForSendingStatus=True)
        checked = waybill("doctor", "--json", environment=stack.environment() | server.environment() | sender)

    assert source == "exports@mail.example.com"
    assert [event.batch_export_id.removeprefix("export-") in each for each in recipients] == [True]
    assert message["Subject"] == "Your data export is ready"
    assert json.loads(checked.stdout)["mail"].startswith("SES in eu-central-1 is in the sandbox")
    assert stack.mails() == []
