"""Users who may not set all settings get the right rows, or a refusal that names the setting."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from config.errors import Rejected
from pipeline.read import check
from pipeline.types import FORMATS
from tests.oracle import worlds
from tests.oracle.pools import PROJECTS
from tests.services.stacks import Servers
from tests.support.agreement import Filled, fill_databases
from tests.support.clickhouse_user import User, serve
from tests.support.tables import READINGS

pytestmark = pytest.mark.clickhouse

READONLY = User(readonly=True)
TIMED = User(ranges={"max_execution_time": (None, 3600), "max_block_size": (1024, 4096)})
CUTTING = User(values={"max_result_rows": "1", "max_block_size": "1", "result_overflow_mode": "break"})


@pytest.fixture(scope="module")
def rows(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with servers.stack(tmp_path_factory.mktemp("users")) as stack, fill_databases(stack, worlds.make(7)) as filled:
        yield filled


@contextmanager
def through(rows: Filled, user: User) -> Iterator[Filled]:
    clickhouse = rows.databases.sources.clickhouse
    with serve(clickhouse.url, user) as proxy:
        sources = replace(rows.databases.sources, clickhouse=replace(clickhouse, url=proxy.url))
        yield replace(rows, databases=replace(rows.databases, sources=sources))


@pytest.mark.parametrize("user", [READONLY, TIMED], ids=["readonly=1", "limited"])
def test_a_limited_user_exports_the_expected_files(rows: Filled, user: User) -> None:
    with through(rows, user) as limited:
        for table, events in READINGS:
            query = {"tableName": table, "filter": None, "orderBy": None, "useEventsTable": events}
            for form in FORMATS:
                assert limited.problems(PROJECTS[0], query, form) == [], (table, form)


def test_a_setting_that_the_rows_depend_on_is_refused_by_its_name(rows: Filled) -> None:
    user = User(values={"join_use_nulls": "1"}, fixed=("join_use_nulls",))
    with through(rows, user) as limited:
        with pytest.raises(Rejected, match=r"join_use_nulls: it is '1', and exports need '0'"):
            limited.databases.read()
        (problem,) = check.find_problems(limited.databases.sources.clickhouse)
        assert "join_use_nulls" in problem


def test_a_profile_that_cuts_results_without_an_error_can_not_cut_a_file(rows: Filled) -> None:
    with through(rows, CUTTING) as limited, pytest.raises(Exception, match=r"max_result_rows|TOO_MANY_ROWS"):
        limited.databases.read(project=PROJECTS[0])


@pytest.mark.parametrize("limit", ["1", "3"])
def test_a_profile_that_limits_rows_can_not_cut_a_file(rows: Filled, limit: str) -> None:
    with through(rows, User(values={"limit": limit})) as limited:
        for table, events in READINGS:
            query = {"tableName": table, "filter": None, "orderBy": None, "useEventsTable": events}
            assert limited.problems(PROJECTS[0], query, "JSONL") == [], table


def test_a_limit_of_rows_that_may_not_be_changed_is_refused_by_its_name(rows: Filled) -> None:
    with through(rows, User(values={"limit": "1"}, fixed=("limit",))) as limited:
        with pytest.raises(Rejected, match=r"limit: it is '1', and exports need '0'"):
            limited.databases.read()
        (problem,) = check.find_problems(limited.databases.sources.clickhouse)
        assert "limit" in problem


def test_the_doctor_names_what_a_limited_user_may_not_set(rows: Filled) -> None:
    with through(rows, TIMED) as limited:
        source = limited.databases.sources.clickhouse
        assert check.find_problems(source) == []
        assert "max_execution_time is 3600" in " ".join(check.find_effects(source))
    with through(rows, READONLY) as limited:
        source = limited.databases.sources.clickhouse
        assert check.find_problems(source) == []
        effects = " ".join(check.find_effects(source))
        assert "join_algorithm" in effects
        assert "http_send_timeout is 30" in effects
        assert "max_execution_time" not in effects
    assert check.find_effects(rows.databases.sources.clickhouse) == []
