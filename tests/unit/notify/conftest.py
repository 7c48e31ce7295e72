"""A database with the tables that the notifier reads and writes, an SMTP server, and a context on both."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from notify.deliver import MailTransport, NotifierContext
from notify.notices import Notices
from notify.smtp_url import parse_server
from tests.support.notices import SENDER, MailServer, create_tables, mail_server
from tests.support.sqlite import open_copy


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_copy(tmp_path / "langfuse.db", create_tables)
    yield opened
    opened.dispose()


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server(enable_SMTPUTF8=True) as running:
        yield running


@pytest.fixture
def context(engine: Engine, server: MailServer) -> NotifierContext:
    store = Notices(engine, retry_for=timedelta(days=7), first_delay=timedelta(seconds=5), lease=timedelta(seconds=60))
    return NotifierContext(engine, store, MailTransport(parse_server(server.url), SENDER), None, None)
