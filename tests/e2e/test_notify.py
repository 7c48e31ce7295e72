"""The notifier end to end: a completion event in, one email out."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from config.events import ExportFinished
from config.tables import batch_exports, users
from tests.e2e.completions import add_ended_export, emails, notifier, publish, row, wait_until_ended
from tests.services.process import free_port
from tests.services.smtp import Smtp
from tests.services.stacks import Stack
from tests.support.daemons import eventually
from tests.support.notices import mail_server


@pytest.mark.slow
def test_a_completion_published_five_times_is_one_email(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    event = add_ended_export(engine)
    again = event.model_copy(update={"event_id": f"{event.event_id}-again"})
    with notifier(stack, tmp_path) as running:
        publish(stack, *[event.encode()] * 4, again.encode())

        assert wait_until_ended(engine, event).state == "sent"
        eventually(lambda: running.metric("waybill_notices_total", outcome="duplicate") == 4)
        assert running.metric("waybill_notices_total", outcome="sent") == 1

    (email,) = emails(stack, event)
    assert email.message["Subject"] == "Your data export is ready"
    assert row(engine, again) is None


def test_a_failure_email_has_the_reason(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    event = add_ended_export(engine, status="FAILED", log="Column latncy is not known", url=None)
    with notifier(stack, tmp_path):
        publish(stack, event.encode())
        assert wait_until_ended(engine, event).state == "sent"

    (email,) = emails(stack, event)
    body = email.message.get_body(("plain",))
    assert body is not None
    assert "Column latncy is not known" in body.get_content()


@pytest.mark.slow
def test_malformed_completions_do_not_block_the_next(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    event = add_ended_export(engine)
    with notifier(stack, tmp_path) as running:
        publish(stack, b"not json", b"{}", b"\x00\xff" * 1000, b"", event.encode())

        assert wait_until_ended(engine, event).state == "sent"
        eventually(lambda: running.metric("waybill_notices_total", outcome="malformed") == 4)
        assert running.ready()


@pytest.mark.slow
def test_a_completion_published_while_no_notifier_runs_is_sent_later(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    event = add_ended_export(engine)
    publish(stack, event.encode())
    with notifier(stack, tmp_path):
        assert wait_until_ended(engine, event).state == "sent"

    with notifier(stack, tmp_path):
        other = add_ended_export(engine)
        publish(stack, other.encode())
        assert wait_until_ended(engine, other).state == "sent"

    assert len(emails(stack, event)) == 1


@pytest.mark.slow
def test_an_unavailable_smtp_server_fails_the_notice_and_not_the_export(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    event = add_ended_export(engine)
    away = {"SMTP_CONNECTION_URL": "smtp://127.0.0.1:9", "WAYBILL_NOTICE_HOURS": str(2 / 3600)}
    with notifier(stack, tmp_path, **away) as running:
        publish(stack, event.encode())

        kept = wait_until_ended(engine, event)
        assert kept.state == "failed"
        assert kept.attempts > 1
        eventually(lambda: running.metric("waybill_notices_total", outcome="retried") == kept.attempts - 1)
        assert running.metric("waybill_notices_total", outcome="failed") == 1

    with engine.connect() as connection:
        status = connection.scalar(select(batch_exports.c.status).where(batch_exports.c.id == event.batch_export_id))
    assert status == "COMPLETED"
    assert emails(stack, event) == []


@pytest.mark.slow
def test_an_smtp_server_that_comes_back_gets_the_waiting_email(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    event, port = add_ended_export(engine), free_port()
    with notifier(stack, tmp_path, SMTP_CONNECTION_URL=f"smtp://127.0.0.1:{port}"):
        publish(stack, event.encode())
        eventually(lambda: (kept := row(engine, event)) and kept.attempts > 2, what="several failed attempts")

        with mail_server(port=port) as server:
            kept = wait_until_ended(engine, event)

    assert kept.state == "sent"
    assert [each["Message-ID"] for each in server.messages] == [kept.message_id]


@pytest.mark.slow
def test_only_an_email_without_a_reply_is_sent_twice(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    event, other = add_ended_export(engine), add_ended_export(engine)
    with mail_server() as server, notifier(stack, tmp_path, SMTP_CONNECTION_URL=server.url) as running:
        server.before_answer = lambda transport: transport.abort()
        publish(stack, event.encode())
        eventually(
            lambda: running.metric("waybill_notices_total", outcome="unanswered") > 0,
            what="the missing reply is counted",
        )
        server.before_answer = None
        assert wait_until_ended(engine, event).state == "sent"
        publish(stack, other.encode())
        assert wait_until_ended(engine, other).state == "sent"
        unanswered = running.metric("waybill_notices_total", outcome="unanswered")

    message_ids = [each["Message-ID"] for each in server.messages]
    assert message_ids.count(row_id(engine, event)) == 1 + unanswered
    assert message_ids.count(row_id(engine, other)) == 1


def row_id(engine: Engine, event: ExportFinished) -> str:
    kept = row(engine, event)
    assert kept is not None
    return str(kept.message_id)


@pytest.mark.slow
@pytest.mark.parametrize(("local_part", "state"), [("refused", "failed"), ("later", "pending")])
def test_a_refused_recipient_is_retried_only_after_a_temporary_reply(
    stack: Stack, engine: Engine, smtp: Smtp, tmp_path: Path, local_part: str, state: str
) -> None:
    event = add_ended_export(engine)
    with engine.begin() as connection:
        who = users.c.id == f"user-{event.batch_export_id.removeprefix('export-')}"
        connection.execute(update(users).where(who).values(email=f"{local_part}@{event.event_id}.test"))

    with notifier(stack, tmp_path, **smtp.environment()):
        publish(stack, event.encode())
        eventually(
            lambda: (kept := row(engine, event)) and kept.state == state and kept.attempts > (state == "pending"),
            what=f"it is {state}",
        )

    assert [each for each in smtp.mailbox.mails() if each.recipient.endswith(f"@{event.event_id}.test")] == []


@pytest.mark.slow
def test_a_name_with_line_breaks_adds_no_header_and_no_recipient(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    event = add_ended_export(engine, name="x" * 100_000 + "\r\nBcc: eve@example.com\r\n\r\nEvil")
    with engine.begin() as connection:
        who = users.c.id == f"user-{event.batch_export_id.removeprefix('export-')}"
        connection.execute(update(users).where(who).values(name="Ada\r\nBcc: eve@example.com\r\n.\r\nMAIL FROM:<>"))

    with notifier(stack, tmp_path):
        publish(stack, event.encode())
        assert wait_until_ended(engine, event).state == "sent"

    (email,) = emails(stack, event)
    assert email.message["Bcc"] is None
    assert email.message["Subject"] == "Your data export is ready"
    assert len(stack.mails()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["EMAIL_FROM_ADDRESS", "SMTP_CONNECTION_URL"])
def test_a_notice_is_logged_and_skipped_without_email_settings(
    stack: Stack, engine: Engine, tmp_path: Path, missing: str
) -> None:
    event = add_ended_export(engine)
    with notifier(stack, tmp_path, **{missing: ""}) as running:
        publish(stack, event.encode())

        assert wait_until_ended(engine, event).state == "skipped"
        eventually(lambda: [each for each in running.lines() if each.get("outcome") == "skipped"])

    assert emails(stack, event) == []


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_a_signal_ends_the_notifier_with_status_zero(stack: Stack, tmp_path: Path) -> None:
    with notifier(stack, tmp_path) as running:
        running.process.terminate()
        assert running.process.wait(30) == 0
