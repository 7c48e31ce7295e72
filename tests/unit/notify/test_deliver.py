import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Row, delete, insert, make_url, select, update

from config.events import Status
from config.labels import Channel, NoticeOutcome
from config.links import Links
from config.settings import Misconfigured, load
from config.tables import batch_exports, notices, runs, users
from notify.deliver import Attempt, MailTransport, NotifierContext, attempt, read_transport, settle
from notify.notice import Notice
from notify.smtp_url import parse_server
from runtime.database import open_database
from tests.services.process import free_port
from tests.support.notices import (
    NOW,
    SENDER,
    URL,
    MailServer,
    add_export,
    add_user,
    completion,
)

FAILED: dict[str, Any] = {"status": Status.FAILED, "error": "no such column", "sha256": None}


def with_server(context: NotifierContext, url: str) -> NotifierContext:
    return replace(context, transport=MailTransport(parse_server(url), SENDER))


def claim(context: NotifierContext, **changes: Any) -> Notice:
    context.notices.record(completion(**changes), NOW)
    return claim_again(context)


def claim_again(context: NotifierContext) -> Notice:
    now = NOW + timedelta(days=1)
    claimed = context.notices.claim(context.notices.find_due(now, Channel.MAIL, limit=1)[0], now)
    assert claimed is not None
    return claimed


def row(engine: Engine) -> Row[Any]:
    with engine.connect() as connection:
        return connection.execute(select(notices)).one()


def test_the_user_who_requested_the_export_gets_an_email(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    add_user(engine)
    add_user(engine, id="user-2", email="eve@example.com")
    add_export(engine)

    ended = attempt(context, claim(context), NOW)

    assert ended.outcome is NoticeOutcome.SENT
    assert server.recipients == ["ada@example.com"]
    assert [each["Message-ID"] for each in server.messages] == [ended.detail]
    body = server.messages[0].get_body(("plain",))
    assert body is not None
    assert URL in str(body.get_content()).splitlines()


@pytest.mark.parametrize("ignored", ["newKey", b"newKey", None])
def test_the_email_names_the_parts_that_the_attempt_of_the_event_left_out(
    engine: Engine, context: NotifierContext, server: MailServer, ignored: str | bytes | None
) -> None:
    add_user(engine)
    add_export(engine)
    with engine.begin() as connection:
        for attempt_number, text in ((1, ignored), (2, "another attempt")):
            run = {"export_id": "export-1", "attempt": attempt_number, "project_id": "project-1", "worker": "w"}
            times = dict.fromkeys(("claimed_at", "heartbeat_at", "lease_until"), NOW)
            connection.execute(insert(runs).values(**run, **times, ignored=text))

    assert attempt(context, claim(context), NOW).outcome is NoticeOutcome.SENT

    body = server.messages[0].get_body(("plain",))
    assert body is not None
    assert ("were ignored: newKey." in body.get_content()) is (ignored is not None)
    assert "another attempt" not in body.get_content()


def test_a_notifier_suspended_for_longer_than_its_lease_sends_nothing(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    add_user(engine)
    add_export(engine)
    suspended = claim(context)
    later = NOW + timedelta(days=2)
    taken_over = context.notices.claim(context.notices.find_due(later, Channel.MAIL, limit=1)[0], later)
    assert taken_over is not None

    ended = attempt(context, suspended, NOW)

    assert (ended.outcome, ended.detail) == (NoticeOutcome.RETRIED, "another notifier has taken the notice over")
    assert settle(context.notices, suspended, ended, later) is None
    assert server.taken == []
    assert attempt(context, taken_over, NOW).outcome is NoticeOutcome.SENT
    assert len(server.taken) == 1


def test_the_email_of_a_failed_export_contains_the_reason(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    add_user(engine)
    add_export(engine, status="FAILED", url=None, expires_at=None)

    assert attempt(context, claim(context, **FAILED), NOW).outcome is NoticeOutcome.SENT

    assert server.messages[0]["Subject"] == "Your data export failed"
    assert b"no such column" in server.taken[0]


def test_the_email_links_to_the_exports_page_of_the_project(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    add_user(engine)
    add_export(engine, project_id="a/b ?")
    context = replace(context, nextauth_url="https://app.example.com")

    assert attempt(context, claim(context, project_id="a/b ?"), NOW).outcome is NoticeOutcome.SENT

    body = server.messages[0].get_body(("plain",))
    assert "https://app.example.com/project/a%2Fb%20%3F/settings/exports" in str(body)


PAGE = "https://a.test/project/project-1/settings/exports"
Mailing = tuple[NotifierContext, MailServer]


@pytest.fixture
def mailing(context: NotifierContext, server: MailServer) -> Mailing:
    return context, server


def signed(hours: int, *, session: bool = False) -> str:
    token = "&X-Amz-Security-Token=t" if session else ""
    date = f"{NOW - timedelta(minutes=1):%Y%m%dT%H%M%SZ}"
    query = f"X-Amz-Date={date}&X-Amz-Expires={hours * 3600}{token}&X-Amz-Signature=abc"
    return f"https://files.example.com/exports/1.csv?{query}"


def signed_by_google(hours: int) -> str:
    return signed(hours).replace("X-Amz", "X-Goog")


def signed_by_azure(hours: int) -> str:
    end = NOW + timedelta(hours=hours, minutes=-1)
    return f"https://acme.blob.core.windows.net/exports/1.csv?se={end:%Y-%m-%dT%H}%3A{end:%M}%3A{end:%S}Z&sp=r&sig=abc"


TO_THE_URL, TO_THE_PAGE = None, PAGE
DOWNLOADED_THERE = ("Download it from your exports:", "You can download it there")
WHOLE_TIME = "for 24 hours, until 2 October 2026, 14:05 UTC"


@pytest.mark.parametrize(
    ("url", "nextauth_url", "target", "promise"),
    [
        (signed(24), "https://a.test", TO_THE_URL, "for 24 hours, until 2 October 2026, 14:04 UTC"),
        (signed(24, session=True), "https://a.test", TO_THE_PAGE, WHOLE_TIME),
        (signed(6, session=True), "https://a.test", TO_THE_PAGE, WHOLE_TIME),
        (signed(6), "https://a.test", TO_THE_PAGE, WHOLE_TIME),
        (signed(6, session=True), None, TO_THE_URL, "for 6 hours, until 1 October 2026, 20:04 UTC"),
        (signed(30), None, TO_THE_URL, WHOLE_TIME),
        (signed_by_google(6), "https://a.test", TO_THE_PAGE, WHOLE_TIME),
        (signed_by_google(6), None, TO_THE_URL, "for 6 hours, until 1 October 2026, 20:04 UTC"),
        (signed_by_azure(24), "https://a.test", TO_THE_URL, "for 24 hours, until 2 October 2026, 14:04 UTC"),
        (signed_by_azure(6), None, TO_THE_URL, "for 6 hours, until 1 October 2026, 20:04 UTC"),
        (
            signed(24, session=True),
            None,
            TO_THE_URL,
            "for at most 24 hours, until 2 October 2026, 14:04 UTC at the latest",
        ),
    ],
)
def test_the_email_promises_no_more_time_than_the_signature_of_its_link_has(
    engine: Engine, mailing: Mailing, url: str, nextauth_url: str | None, target: str | None, promise: str
) -> None:
    context, server = mailing
    add_user(engine)
    add_export(engine, url=url)

    ended = attempt(replace(context, nextauth_url=nextauth_url), claim(context), NOW)

    assert ended.outcome is NoticeOutcome.SENT
    body = server.messages[0].get_body(("plain",))
    assert body is not None
    lines = str(body.get_content()).splitlines()
    heading, begin = ("Download it here:", "The link is valid") if target is None else DOWNLOADED_THERE
    assert lines[lines.index(heading) + 1] == (target or url)
    assert f"{begin} {promise}." in lines


def test_an_email_is_not_sent_with_a_link_whose_signature_has_ended(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    add_user(engine)
    add_export(engine, url=signed(1, session=True))

    ended = attempt(context, claim(context), NOW + timedelta(hours=2))

    assert (ended.outcome, ended.detail) == (NoticeOutcome.SKIPPED, "the download link has expired")
    assert server.taken == []


@pytest.mark.parametrize(
    "query", ["", "se=x", "X-Amz-Date=x&X-Amz-Expires=5", "X-Amz-Date=20261001T140500Z&X-Amz-Expires=1e99"]
)
def test_a_link_whose_signature_can_t_be_read_is_sent_as_it_is(
    engine: Engine, context: NotifierContext, server: MailServer, query: str
) -> None:
    add_user(engine)
    add_export(engine, url=f"https://files.example.com/1.csv?{query}")

    assert attempt(replace(context, nextauth_url="https://app.example.com"), claim(context), NOW).outcome is (
        NoticeOutcome.SENT
    )

    body = server.messages[0].get_body(("plain",))
    assert body is not None
    assert f"https://files.example.com/1.csv?{query}" in str(body.get_content()).splitlines()


def test_with_a_public_url_the_button_opens_a_waybill_link(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    add_user(engine)
    add_export(engine, url=None)
    links = Links("https://exports.example.com", [b"k" * 32])

    ended = attempt(replace(context, links=links), claim(context), NOW)

    assert ended.outcome is NoticeOutcome.SENT

    link = links.write("project-1", "export-1")
    plain, html = (server.messages[0].get_body((kind,)) for kind in ("plain", "html"))
    assert plain is not None
    assert html is not None
    assert link in str(plain.get_content()).splitlines()
    assert f'href="{link}"' in str(html.get_content())


@pytest.mark.parametrize(
    ("export", "user", "event", "why"),
    [
        ({"project_id": "project-2"}, {}, {}, "the export no longer exists"),
        ({"id": "export-2"}, {}, {}, "the export no longer exists"),
        ({"user_id": "nobody"}, {}, {}, "the user no longer exists"),
        ({}, {"email": None}, {}, "the user has no email address"),
        ({}, {"email": " "}, {}, "the user has no email address"),
        ({"status": "CANCELLED"}, {}, {}, "the export is CANCELLED now"),
        ({"status": "QUEUED"}, {}, FAILED, "the export is QUEUED now"),
        ({"expires_at": NOW}, {}, {}, "the download link has expired"),
        ({"url": None}, {}, {}, "the export has no link"),
        ({"url": "javascript:alert(1)"}, {}, {}, "the export has no link"),
    ],
)
def test_a_notice_without_a_recipient_or_a_link_is_skipped(
    engine: Engine, context: NotifierContext, server: MailServer, *, export: Any, user: Any, event: Any, why: str
) -> None:
    add_user(engine, **user)
    add_export(engine, **export)

    assert attempt(context, claim(context, **event), NOW) == Attempt(NoticeOutcome.SKIPPED, why)
    assert server.taken == []


def test_without_mail_settings_every_notice_is_skipped(context: NotifierContext) -> None:
    context = replace(context, transport=None)

    assert attempt(context, claim(context), NOW) == Attempt(
        NoticeOutcome.SKIPPED, "EMAIL_FROM_ADDRESS or SMTP_CONNECTION_URL is not set"
    )


@pytest.mark.parametrize("missing", ["EMAIL_FROM_ADDRESS", "SMTP_CONNECTION_URL"])
def test_both_mail_settings_are_required(missing: str) -> None:
    values = {"EMAIL_FROM_ADDRESS": "exports@example.com", "SMTP_CONNECTION_URL": "smtp://mail.example:2525"}

    assert read_transport(load(values)) == MailTransport(parse_server("smtp://mail.example:2525"), SENDER)
    del values[missing]
    assert read_transport(load(values)) is None


@pytest.mark.parametrize("wrong", [{"EMAIL_FROM_ADDRESS": "nobody"}, {"SMTP_CONNECTION_URL": "smtp://"}])
def test_an_invalid_mail_setting_is_named_at_startup(wrong: dict[str, str]) -> None:
    values = {"EMAIL_FROM_ADDRESS": "exports@example.com", "SMTP_CONNECTION_URL": "smtp://mail.example:2525"}

    with pytest.raises(Misconfigured, match=next(iter(wrong))):
        read_transport(load(values | wrong))


@pytest.mark.parametrize(
    "address",
    [
        "x@=?utf-8?q?evil.com?=",
        "=?utf-8?q?victim=40evil.com=3E?=@attacker.com",
        "=?utf-8?b?dmljdGltQGV2aWwuY29t?=@attacker.com",
        "=?utf-8?q?=0D=0ABcc=3A_eve=40evil.com?=@attacker.com",
        "x@=?utf-8?q?evil.com=0D=0ARCPT_TO=3A=3Ceve=40evil.com=3E?=",
        "user@example.com.",
        "user@.example.com",
        "user@[127.0.0.1]",
        "user@127.0.0.1",
        "user@\uff45vil.com",
        "user@evil\u3002com",
        "user@\u212aernel.org",
        "user@evil.com\u00ad",
        "user%evil.com@@attacker.com",
    ],
)
def test_what_is_not_an_address_fails_with_a_reason_and_is_sent_to_nobody(
    engine: Engine, context: NotifierContext, server: MailServer, address: str
) -> None:
    add_user(engine, email=address)
    add_export(engine)

    ended = attempt(context, claim(context), NOW)

    assert (ended.outcome, server.recipients) == (NoticeOutcome.FAILED, [])
    assert "not an email address" in ended.detail


def test_an_invalid_address_is_not_retried(engine: Engine, context: NotifierContext, server: MailServer) -> None:
    add_user(engine, email="ada@example.com\nBcc: eve@example.com")
    add_export(engine)

    assert attempt(context, claim(context), NOW).outcome is NoticeOutcome.FAILED
    assert server.taken == []


@pytest.mark.parametrize(
    ("answer", "outcome"), [("550 no", NoticeOutcome.FAILED), ("450 later", NoticeOutcome.RETRIED)]
)
def test_a_permanent_rejection_fails_and_a_temporary_one_is_retried(
    engine: Engine, context: NotifierContext, server: MailServer, answer: str, outcome: NoticeOutcome
) -> None:
    add_user(engine)
    add_export(engine)
    server.rcpt = answer

    assert attempt(context, claim(context), NOW).outcome is outcome


def test_an_unavailable_database_is_retried(
    context: NotifierContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unavailable = open_database(make_url(f"sqlite:///{tmp_path}/missing/langfuse.db"))

    ended = attempt(replace(context, engine=unavailable), claim(context), NOW)

    assert ended == Attempt(
        NoticeOutcome.RETRIED,
        "the database failed: unable to open the file of DATABASE_URL: is its folder there, and writable?",
    )
    assert caplog.records == []


def test_an_error_in_a_statement_is_a_bug_and_retried(
    engine: Engine, context: NotifierContext, caplog: pytest.LogCaptureFixture
) -> None:
    claimed = claim(context)
    users.drop(engine)

    ended = attempt(context, claimed, NOW)

    assert ended == Attempt(NoticeOutcome.BUG, "internal error (OperationalError)")
    assert [each.exc_info is not None for each in caplog.records] == [True]


def test_a_stored_event_that_can_not_be_read_fails_its_notice(context: NotifierContext) -> None:
    ended = attempt(context, Notice("event-1", Channel.MAIL, "export-1", 1, NOW, b"not an event", None), NOW)

    assert ended.outcome is NoticeOutcome.FAILED
    assert ended.detail.startswith("the stored event can't be read: ")


def test_a_bug_is_logged_with_its_traceback_and_retried(
    context: NotifierContext, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr("notify.deliver.find_recipient", broken)

    ended = attempt(context, Notice("event-1", Channel.MAIL, "export-1", 1, NOW, completion().encode(), None), NOW)

    assert ended == Attempt(NoticeOutcome.BUG, "internal error (TypeError)")
    assert [each.exc_info is not None for each in caplog.records] == [True]


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (NoticeOutcome.SENT, "sent"),
        (NoticeOutcome.SKIPPED, "skipped"),
        (NoticeOutcome.FAILED, "failed"),
        (NoticeOutcome.RETRIED, "pending"),
    ],
)
def test_each_outcome_is_recorded_and_counted(
    engine: Engine, context: NotifierContext, outcome: NoticeOutcome, state: str
) -> None:
    claimed = claim(context)

    assert settle(context.notices, claimed, Attempt(outcome, "<id>"), NOW) is outcome
    assert row(engine).state == state


@pytest.mark.parametrize("outcome", [NoticeOutcome.RETRIED, NoticeOutcome.UNANSWERED])
def test_a_notice_is_retried_until_its_time_is_over(
    engine: Engine, context: NotifierContext, outcome: NoticeOutcome
) -> None:
    claimed = claim(context)
    for hours in (0, 1, 23.9):
        assert settle(context.notices, claimed, Attempt(outcome, "busy"), NOW + timedelta(hours=hours)) is outcome
        claimed = claim_again(context)

    assert settle(context.notices, claimed, Attempt(outcome, "busy"), NOW + timedelta(days=7)) is NoticeOutcome.FAILED
    assert (row(engine).state, row(engine).attempts, row(engine).error) == ("failed", 4, "busy")


def test_a_greylisted_email_is_accepted_minutes_later(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    add_user(engine)
    add_export(engine)
    context.notices.record(completion(), NOW)
    now, accepts = NOW, NOW + timedelta(minutes=5)
    outcomes = []
    while NoticeOutcome.SENT not in outcomes:
        server.rcpt = "250 OK" if now >= accepts else "451 4.7.1 greylisted, try again in 5 minutes"
        claimed = context.notices.claim(context.notices.find_due(now, Channel.MAIL, limit=1)[0], now)
        assert claimed is not None
        outcomes.append(settle(context.notices, claimed, attempt(context, claimed, now), now))
        now = context.notices.next_due().get(Channel.MAIL, now)

    assert outcomes == [NoticeOutcome.RETRIED] * 6 + [NoticeOutcome.SENT]
    assert len(server.taken) == 1


def test_only_an_unanswered_email_can_arrive_twice_and_is_counted(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    add_user(engine)
    add_export(engine)
    claimed = claim(context)
    server.before_answer = lambda transport: transport.abort()

    ended = attempt(context, claimed, NOW)

    assert settle(context.notices, claimed, ended, NOW) is NoticeOutcome.UNANSWERED
    assert row(engine).state == "pending"
    server.before_answer = None
    again = attempt(context, claim_again(context), NOW)
    assert again.outcome is NoticeOutcome.SENT
    assert [each["Message-ID"] for each in server.messages] == [again.detail] * 2


def test_a_notice_that_another_notifier_took_over_is_not_counted(context: NotifierContext) -> None:
    zombie = claim(context)
    later = NOW + timedelta(days=3)
    context.notices.claim(context.notices.find_due(later, Channel.MAIL, limit=1)[0], later)

    assert settle(context.notices, zombie, Attempt(NoticeOutcome.RETRIED, "late"), NOW) is None


def test_a_failing_mail_server_never_changes_the_export(engine: Engine, context: NotifierContext) -> None:
    add_user(engine)
    add_export(engine)
    context = with_server(context, f"smtp://127.0.0.1:{free_port()}")
    with engine.connect() as connection:
        before = connection.execute(select(batch_exports)).all()

    claimed = claim(context)
    settle(context.notices, claimed, attempt(context, claimed, NOW), NOW)

    with engine.connect() as connection:
        assert connection.execute(select(batch_exports)).all() == before


def test_no_address_password_or_link_is_logged(
    engine: Engine, context: NotifierContext, server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    add_user(engine)
    add_export(engine)
    context = with_server(context, server.url.replace("smtp://", "smtp://ada:hunter2@"))

    for answer in ("250 OK", "550 ada@example.com unknown"):
        server.rcpt = answer
        claimed = claim(context)
        settle(context.notices, claimed, attempt(context, claimed, NOW), NOW)
        with engine.begin() as connection:
            connection.execute(delete(notices))
    with engine.begin() as connection:
        connection.execute(update(users).values(email="ada@example.com, x"))
    claimed = claim(context)
    settle(context.notices, claimed, attempt(context, claimed, NOW), NOW)

    logged = [each for each in caplog.records if each.name.startswith("notify")]
    assert len(logged) == 3
    text = "".join(str(each.__dict__) + each.getMessage() for each in logged)
    assert not any(secret in text for secret in ("ada@example.com", "hunter2", "Signature"))
