"""Fixtures of the fault suite, its rounds, and the table that it prints."""

import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults import case
from tests.faults.servers import Servers, replace_store, start_servers
from tests.faults.source import Source, create_source
from tests.faults.system import System, start_system
from tests.services import choice

CASE_SECONDS = 900
RESULTS: dict[tuple[str, str], list[str]] = defaultdict(list)
SCALED: dict[tuple[str, str], str] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = metafunc.module.CASES
        group = _group(metafunc.module.__name__)
        SCALED.update({(group, each.name): each.scaled for each in cases})
        often = set(metafunc.module.OFTEN)
        assert often <= {each.name for each in cases}, f"no such cases: {often}"
        rounds = [
            pytest.param(each, n, id=f"{each.name}/{n}", marks=[pytest.mark.faults_often] if each.name in often else [])
            for n in range(case.ROUNDS)
            for each in cases
        ]
        metafunc.parametrize(("case", "number"), rounds)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "faults" in item.keywords:
            item.add_marker(pytest.mark.timeout(CASE_SECONDS))


@pytest.fixture(scope="session")
def fault_servers(services_folder: Path) -> Iterator[Servers]:
    if missing := [reason for each in ("kafka", "postgres", "s3", "smtp") if (reason := choice.why_not(each))]:
        pytest.skip("; ".join(missing))
    folder = services_folder / "faults"
    folder.mkdir()
    folder.chmod(0o711)
    with start_servers(folder) as servers:
        yield servers


@pytest.fixture(scope="session")
def fault_source(fault_servers: Servers) -> Iterator[Source]:
    with create_source(fault_servers) as rows:
        yield rows


@pytest.fixture(scope="module")
def system(
    fault_servers: Servers,
    fault_source: Source,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[System]:
    """The system of a group, with the daemons that DAEMONS of its module names, on the store that STORE names."""
    store, folder = getattr(request.module, "STORE", "s3"), tmp_path_factory.mktemp("system")
    if reason := choice.why_not(store):
        pytest.skip(reason)
    with ExitStack() as life:
        servers = fault_servers
        if store != "s3":
            servers = life.enter_context(replace_store(servers, store, folder))
        running = life.enter_context(start_system(servers, fault_source, folder, store))
        running.expected_daemons = request.module.DAEMONS
        running.restore_daemons()
        yield running


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    path, _, name = report.nodeid.partition("::")
    if "tests/faults/" not in path or "[" not in name or not (report.when == "call" or report.outcome != "passed"):
        return
    RESULTS[_group(Path(path).stem), name.partition("[")[2].rpartition("/")[0]].append(report.outcome)
    if report.failed:
        # A run takes long: report failures immediately.
        sys.stderr.write(f"\n{report.nodeid}\n{report.longreprtext[-4000:]}\n")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not RESULTS:
        return
    terminalreporter.section(f"faults (FAULT_SEED={case.SEED})")
    terminalreporter.write_line(f"{'group':<16}{'case':<74}{'rounds':>7}  result")
    for (group, name), outcomes in RESULTS.items():
        failed = len(outcomes) - outcomes.count("passed")
        result = f"{failed} failed" if failed else "passed"
        scaled = SCALED.get((group, name))
        terminalreporter.write_line(
            f"{group:<16}{name:<74}{len(outcomes):>7}  {result}{f' (scaled: {scaled})' if scaled else ''}"
        )


def _group(module: str) -> str:
    return module.rpartition(".")[2].removeprefix("test_")
