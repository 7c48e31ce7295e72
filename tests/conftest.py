"""Fixtures for every test: the real services one by one, and `stack`, all that Waybill needs, embedded or real."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded import stack as embedded_parts
from embedded.stack import Stack as Parts
from tests.services import choice, process
from tests.services import kafka as kafka_service
from tests.services import postgres as postgres_service
from tests.services import s3 as s3_service
from tests.services import smtp as smtp_service
from tests.services.kafka import Kafka
from tests.services.postgres import Postgres
from tests.services.s3 import S3
from tests.services.smtp import Smtp
from tests.services.stacks import Embedded, Real, Servers, Stack


def pytest_configure() -> None:
    if problem := choice.problem():
        raise pytest.UsageError(problem)


def pytest_report_header() -> list[str]:
    return choice.report()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "servers" in metafunc.fixturenames:
        metafunc.parametrize("servers", choice.kinds(), indirect=True, scope="session")


@pytest.fixture(scope="session")
def services_folder() -> Iterator[Path]:
    with process.folder() as folder:
        yield folder


def _or_skip(service: str) -> None:
    if reason := choice.why_not(service):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka(services_folder: Path) -> Iterator[Kafka]:
    _or_skip("kafka")
    with kafka_service.start(services_folder / "kafka") as running:
        yield running


@pytest.fixture(scope="session")
def postgres(services_folder: Path) -> Iterator[Postgres]:
    _or_skip("postgres")
    with postgres_service.start(services_folder / "postgres") as running:
        yield running


@pytest.fixture(scope="session")
def s3(services_folder: Path) -> Iterator[S3]:
    _or_skip("s3")
    with s3_service.start(services_folder / "s3") as running:
        yield running


@pytest.fixture(scope="session")
def smtp(services_folder: Path) -> Iterator[Smtp]:
    _or_skip("smtp")
    with smtp_service.start(services_folder / "smtp") as running:
        yield running


@pytest.fixture(scope="session")
def embedded(services_folder: Path) -> Iterator[Parts]:
    with embedded_parts.started(services_folder / "embedded") as running:
        yield running


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest, embedded: Parts) -> Servers:
    """The servers of a session by kind; ClickHouse is the embedded one in both."""
    if request.param == "embedded":
        return Embedded(embedded)
    kafka, postgres, s3, smtp = (request.getfixturevalue(name) for name in ("kafka", "postgres", "s3", "smtp"))
    return Real(kafka, postgres, s3, smtp, embedded.clickhouse)


@pytest.fixture
def stack(servers: Servers, tmp_path: Path) -> Iterator[Stack]:
    """All that Waybill needs, empty, for one test; the test runs once on each kind of servers."""
    with servers.stack(tmp_path) as mine:
        yield mine
