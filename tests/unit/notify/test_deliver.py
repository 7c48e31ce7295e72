import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Row, delete, make_url, select, update

from config.events import Status
from config.labels import NoticeOutcome
from config.links import Links
from config.settings import Misconfigured, load
from config.tables import batch_exports, notices, users
from notify.deliver import Attempt, Desk, Post, attempt, read_post, settle
from notify.notices import Notice, Notices
from notify.smtp import parse_server
from runtime.database import open_database
from tests.support.notices import (
    NOW,
    URL,
    MailServer,
    add_export,
    add_user,
    closed_port,
    completion,
    create_tables,
    mail_server,
)

FAILED: dict[str, Any] = {"status": Status.FAILED, "error": "no such column", "sha256": None}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_database(make_url(f"sqlite:///{tmp_path}/application.db"))
    create_tables(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server() as running:
        yield running


@pytest.fixture
def desk(engine: Engine, server: MailServer) -> Desk:
    return desk_for(engine, server.url)


def desk_for(engine: Engine, url: str | None, nextauth_url: str | None = None, links: Links | None = None) -> Desk:
    post = Post(parse_server(url), "exports@example.com") if url else None
    store = Notices(engine, patience=timedelta(days=7), first_pause=timedelta(seconds=5), lease=timedelta(seconds=60))
    return Desk(engine, store, post, nextauth_url, links)


def claim(desk: Desk, **changes: Any) -> Notice:
    desk.notices.record(completion(**changes), NOW)
    return claim_again(desk)


def claim_again(desk: Desk) -> Notice:
    now = NOW + timedelta(days=1)
    claimed = desk.notices.claim(desk.notices.due(now, limit=1)[0], now)
    assert claimed is not None
    return claimed


def row(engine: Engine) -> Row[Any]:
    with engine.connect() as connection:
        return connection.execute(select(notices)).one()


def test_the_user_who_asked_is_told(engine: Engine, desk: Desk, server: MailServer) -> None:
    add_user(engine)
    add_user(engine, id="user-2", email="eve@example.com")
    add_export(engine)

    ended = attempt(desk, claim(desk), NOW)

    assert ended.outcome is NoticeOutcome.SENT
    assert server.recipients == ["ada@example.com"]
    assert [each["Message-ID"] for each in server.messages] == [ended.detail]
    body = server.messages[0].get_body(("plain",))
    assert body is not None
    assert URL in str(body.get_content()).splitlines()


def test_a_notifier_that_slept_for_longer_than_its_lease_sends_nothing(
    engine: Engine, desk: Desk, server: MailServer
) -> None:
    add_user(engine)
    add_export(engine)
    slept = claim(desk)
    later = NOW + timedelta(days=2)
    taken_over = desk.notices.claim(desk.notices.due(later, limit=1)[0], later)
    assert taken_over is not None

    ended = attempt(desk, slept, NOW)

    assert (ended.outcome, ended.detail) == (NoticeOutcome.RETRIED, "another notifier has taken the notice over")
    assert settle(desk.notices, slept, ended, later) is None
    assert server.taken == []
    assert attempt(desk, taken_over, NOW).outcome is NoticeOutcome.SENT
    assert len(server.taken) == 1


def test_a_failure_is_told_with_its_reason(engine: Engine, desk: Desk, server: MailServer) -> None:
    add_user(engine)
    add_export(engine, status="FAILED", url=None, expires_at=None)

    assert attempt(desk, claim(desk, **FAILED), NOW).outcome is NoticeOutcome.SENT

    assert server.messages[0]["Subject"] == "Your data export failed"
    assert b"no such column" in server.taken[0]


def test_the_page_of_exports_is_linked_with_the_project_escaped(engine: Engine, server: MailServer) -> None:
    add_user(engine)
    add_export(engine, project_id="a/b ?")
    desk = desk_for(engine, server.url, "https://app.example.com")

    assert attempt(desk, claim(desk, project_id="a/b ?"), NOW).outcome is NoticeOutcome.SENT

    body = server.messages[0].get_body(("plain",))
    assert "https://app.example.com/project/a%2Fb%20%3F/settings/exports" in str(body)


def test_with_a_public_url_the_button_goes_to_our_own_link(engine: Engine, server: MailServer) -> None:
    add_user(engine)
    add_export(engine, url=None)
    links = Links("https://exports.example.com", [b"k" * 32])

    ended = attempt(desk_for(engine, server.url, links=links), claim(desk_for(engine, None)), NOW)

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
        ({"project_id": "project-2"}, {}, {}, "there is no such export"),
        ({"id": "export-2"}, {}, {}, "there is no such export"),
        ({"user_id": "nobody"}, {}, {}, "there is no such user"),
        ({}, {"email": None}, {}, "the user has no mail address"),
        ({}, {"email": " "}, {}, "the user has no mail address"),
        ({"status": "CANCELLED"}, {}, {}, "the export is CANCELLED by now"),
        ({"status": "QUEUED"}, {}, FAILED, "the export is QUEUED by now"),
        ({"expires_at": NOW}, {}, {}, "its link has expired"),
        ({"url": None}, {}, {}, "the export has no link"),
        ({"url": "javascript:alert(1)"}, {}, {}, "the export has no link"),
    ],
)
def test_where_there_is_nobody_or_nothing_to_tell_it_is_skipped(
    engine: Engine, desk: Desk, server: MailServer, *, export: Any, user: Any, event: Any, why: str
) -> None:
    add_user(engine, **user)
    add_export(engine, **export)

    assert attempt(desk, claim(desk, **event), NOW) == Attempt(NoticeOutcome.SKIPPED, why)
    assert server.taken == []


def test_without_mail_settings_every_notice_is_skipped(engine: Engine) -> None:
    desk = desk_for(engine, None)

    assert attempt(desk, claim(desk), NOW) == Attempt(
        NoticeOutcome.SKIPPED, "EMAIL_FROM_ADDRESS or SMTP_CONNECTION_URL is not set"
    )


@pytest.mark.parametrize("missing", ["EMAIL_FROM_ADDRESS", "SMTP_CONNECTION_URL"])
def test_both_mail_settings_are_needed(missing: str) -> None:
    values = {"EMAIL_FROM_ADDRESS": "exports@example.com", "SMTP_CONNECTION_URL": "smtp://mail.example:2525"}

    assert read_post(load(values)) == Post(parse_server("smtp://mail.example:2525"), "exports@example.com")
    del values[missing]
    assert read_post(load(values)) is None


@pytest.mark.parametrize("wrong", [{"EMAIL_FROM_ADDRESS": "nobody"}, {"SMTP_CONNECTION_URL": "smtp://"}])
def test_a_wrong_mail_setting_is_named_at_the_start(wrong: dict[str, str]) -> None:
    values = {"EMAIL_FROM_ADDRESS": "exports@example.com", "SMTP_CONNECTION_URL": "smtp://mail.example:2525"}

    with pytest.raises(Misconfigured, match=next(iter(wrong))):
        read_post(load(values | wrong))


def test_an_address_that_is_none_fails_for_good(engine: Engine, desk: Desk, server: MailServer) -> None:
    add_user(engine, email="ada@example.com\nBcc: eve@example.com")
    add_export(engine)

    assert attempt(desk, claim(desk), NOW).outcome is NoticeOutcome.FAILED
    assert server.taken == []


@pytest.mark.parametrize(
    ("answer", "outcome"), [("550 no", NoticeOutcome.FAILED), ("450 later", NoticeOutcome.RETRIED)]
)
def test_a_refusal_is_final_or_for_later(
    engine: Engine, desk: Desk, server: MailServer, answer: str, outcome: NoticeOutcome
) -> None:
    add_user(engine)
    add_export(engine)
    server.rcpt = answer

    assert attempt(desk, claim(desk), NOW).outcome is outcome


def test_a_database_without_answer_is_for_later(engine: Engine, desk: Desk) -> None:
    claimed = claim(desk)
    users.drop(engine)

    ended = attempt(desk, claimed, NOW)

    assert ended == Attempt(NoticeOutcome.RETRIED, "the database does not answer (OperationalError)")


def test_a_bug_is_logged_with_its_traceback_and_tried_again(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    broken = Notice("event-1", "mail", "export-1", 1, NOW, b"not an event", None)

    ended = attempt(desk, broken, NOW)

    assert ended == Attempt(NoticeOutcome.RETRIED, "internal error (Malformed)")
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
def test_an_ending_is_recorded_and_counted_as_what_it_is(
    engine: Engine, desk: Desk, outcome: NoticeOutcome, state: str
) -> None:
    claimed = claim(desk)

    assert settle(desk.notices, claimed, Attempt(outcome, "<id>"), NOW) is outcome
    assert row(engine).state == state


@pytest.mark.parametrize("outcome", [NoticeOutcome.RETRIED, NoticeOutcome.UNANSWERED])
def test_what_is_for_later_is_tried_until_its_time_is_over(engine: Engine, desk: Desk, outcome: NoticeOutcome) -> None:
    claimed = claim(desk)
    for hours in (0, 1, 23.9):
        assert settle(desk.notices, claimed, Attempt(outcome, "busy"), NOW + timedelta(hours=hours)) is outcome
        claimed = claim_again(desk)

    assert settle(desk.notices, claimed, Attempt(outcome, "busy"), NOW + timedelta(days=7)) is NoticeOutcome.FAILED
    assert (row(engine).state, row(engine).attempts, row(engine).error) == ("failed", 4, "busy")


def test_a_greylisted_mail_is_taken_minutes_later(engine: Engine, desk: Desk, server: MailServer) -> None:
    add_user(engine)
    add_export(engine)
    desk.notices.record(completion(), NOW)
    now, accepts = NOW, NOW + timedelta(minutes=5)
    outcomes = []
    while NoticeOutcome.SENT not in outcomes:
        server.rcpt = "250 OK" if now >= accepts else "451 4.7.1 greylisted, try again in 5 minutes"
        claimed = desk.notices.claim(desk.notices.due(now, limit=1)[0], now)
        assert claimed is not None
        outcomes.append(settle(desk.notices, claimed, attempt(desk, claimed, now), now))
        now = desk.notices.next_due() or now

    assert outcomes == [NoticeOutcome.RETRIED] * 6 + [NoticeOutcome.SENT]
    assert len(server.taken) == 1


def test_only_a_mail_without_an_answer_can_come_twice_and_is_counted(
    engine: Engine, desk: Desk, server: MailServer
) -> None:
    add_user(engine)
    add_export(engine)
    claimed = claim(desk)
    server.before_answer = lambda transport: transport.abort()

    ended = attempt(desk, claimed, NOW)

    assert settle(desk.notices, claimed, ended, NOW) is NoticeOutcome.UNANSWERED
    assert row(engine).state == "pending"
    server.before_answer = None
    again = attempt(desk, claim_again(desk), NOW)
    assert again.outcome is NoticeOutcome.SENT
    assert [each["Message-ID"] for each in server.messages] == [again.detail] * 2


def test_what_another_notifier_took_over_is_not_counted(desk: Desk) -> None:
    zombie = claim(desk)
    later = NOW + timedelta(days=3)
    desk.notices.claim(desk.notices.due(later, limit=1)[0], later)

    assert settle(desk.notices, zombie, Attempt(NoticeOutcome.RETRIED, "late"), NOW) is None


def test_mail_trouble_never_touches_the_export(engine: Engine) -> None:
    add_user(engine)
    add_export(engine)
    desk = desk_for(engine, f"smtp://127.0.0.1:{closed_port()}")
    with engine.connect() as connection:
        before = connection.execute(select(batch_exports)).all()

    claimed = claim(desk)
    settle(desk.notices, claimed, attempt(desk, claimed, NOW), NOW)

    with engine.connect() as connection:
        assert connection.execute(select(batch_exports)).all() == before


def test_no_address_password_or_link_is_logged(
    engine: Engine, server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    add_user(engine)
    add_export(engine)
    desk = desk_for(engine, server.url.replace("smtp://", "smtp://ada:hunter2@"))

    for answer in ("250 OK", "550 ada@example.com unknown"):
        server.rcpt = answer
        claimed = claim(desk)
        settle(desk.notices, claimed, attempt(desk, claimed, NOW), NOW)
        with engine.begin() as connection:
            connection.execute(delete(notices))
    with engine.begin() as connection:
        connection.execute(update(users).values(email="ada@example.com, x"))
    claimed = claim(desk)
    settle(desk.notices, claimed, attempt(desk, claimed, NOW), NOW)

    ours = [each for each in caplog.records if each.name.startswith("notify")]
    assert len(ours) == 3
    told = "".join(str(each.__dict__) + each.getMessage() for each in ours)
    assert not any(secret in told for secret in ("ada@example.com", "hunter2", "Signature"))
