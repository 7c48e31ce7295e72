"""Fixtures for every test: the real services one by one, and `stack`, all that Waybill needs, embedded or real."""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from botocore.loaders import JSONFileLoader  # type: ignore[import-untyped]  # it ships no types
from hypothesis import settings

from cli.imports import collecting_nothing
from embedded import stack as embedded_parts
from embedded.stack import Stack as Parts
from tests.containers import engine
from tests.containers.containers import Containers, start_session
from tests.services import choice, process, shared
from tests.services import smtp as smtp_service
from tests.services.azure import Azure
from tests.services.gcs import Gcs
from tests.services.kafka import Kafka
from tests.services.postgres import Postgres
from tests.services.s3 import S3
from tests.services.shared import SharedServices
from tests.services.smtp import Smtp
from tests.services.stacks import Embedded, Real, Servers, Stack

RUNNING = pytest.StashKey[ExitStack]()
FOLDER = pytest.StashKey[Path]()
SERVICES = pytest.StashKey[Any]()


def pytest_configure(config: pytest.Config) -> None:
    if problem := choice.problem():
        raise pytest.UsageError(problem)
    _set_examples()
    if (worker := getattr(config, "workerinput", None)) is not None:
        config.stash[FOLDER] = Path(worker["folder"])
        config.stash[SERVICES] = shared.connect(**worker["services"])
        return
    running = config.stash[RUNNING] = ExitStack()
    config.stash[FOLDER] = running.enter_context(process.folder())
    config.stash[SERVICES] = SharedServices(config.stash[FOLDER])
    running.callback(config.stash[SERVICES].close)


def _set_examples() -> None:
    """Let property tests try few examples by default, and many in CI."""
    cases = os.environ.get("CASES") or "10"
    if not cases.isdecimal() or int(cases) == 0:
        raise pytest.UsageError(f"CASES is {cases!r}; it must be a number of examples, 1 or more")
    settings.register_profile("waybill", max_examples=int(cases), deadline=None, database=None)
    settings.load_profile("waybill")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_configure_node(node: Any) -> None:
    """Tell a worker where the services of this run are."""
    folder = node.config.stash[FOLDER] / node.gateway.id
    folder.mkdir(mode=0o711)
    node.workerinput["folder"] = str(folder)
    node.workerinput["services"] = shared.serve(node.config.stash[SERVICES])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while the modules of all tests are imported: it is a tenth of the time."""
    with collecting_nothing():
        return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    if RUNNING in config.stash:
        config.stash[RUNNING].close()


def pytest_report_header() -> list[str]:
    return choice.report()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "servers" in metafunc.fixturenames:
        metafunc.parametrize("servers", choice.kinds(), indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `make test` run a test of ClickHouse once: its embedded variant is slow where the real services are there."""
    if "real" not in choice.kinds():
        return
    for item in items:
        variant = getattr(item, "callspec", None)
        if item.get_closest_marker("clickhouse") and variant and variant.params.get("servers") == "embedded":
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _service_models() -> Iterator[None]:
    """Let all AWS clients share the models of the services; parsing them takes most of the time of a session."""
    load = cache(JSONFileLoader().load_file)
    with mock.patch.object(JSONFileLoader, "load_file", staticmethod(load)):
        yield


@pytest.fixture(scope="session")
def services_folder(pytestconfig: pytest.Config) -> Path:
    """The folder for the services that this worker does not share."""
    return pytestconfig.stash[FOLDER]


def _shared(config: pytest.Config, service: str) -> Any:
    _or_skip(service)
    return config.stash[SERVICES].start(service)


def _or_skip(service: str) -> None:
    if reason := choice.why_not(service):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Kafka:
    running: Kafka = _shared(pytestconfig, "kafka")
    return running


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Postgres:
    running: Postgres = _shared(pytestconfig, "postgres")
    return running


@pytest.fixture(scope="session")
def s3(pytestconfig: pytest.Config) -> S3:
    running: S3 = _shared(pytestconfig, "s3")
    return running


@pytest.fixture(scope="session")
def azure(pytestconfig: pytest.Config) -> Azure:
    running: Azure = _shared(pytestconfig, "azure")
    return running


@pytest.fixture(scope="session")
def gcs(pytestconfig: pytest.Config) -> Gcs:
    running: Gcs = _shared(pytestconfig, "gcs")
    return running


@pytest.fixture(scope="session")
def smtp(services_folder: Path) -> Iterator[Smtp]:
    _or_skip("smtp")
    with smtp_service.start(services_folder / "smtp") as running:
        yield running


@pytest.fixture(scope="session")
def containers() -> Iterator[Containers]:
    """The container engine; tests that use it are skipped where the machine allows no containers."""
    if reason := engine.forbidden():
        pytest.skip(reason)
    if reason := engine.missing():
        (pytest.fail if os.environ.get("WAYBILL_TEST_REAL") == "require" else pytest.skip)(reason)
    with start_session() as running:
        yield running


@pytest.fixture(scope="session")
def embedded(services_folder: Path) -> Iterator[Parts]:
    with embedded_parts.run_stack(services_folder / "embedded") as running:
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
