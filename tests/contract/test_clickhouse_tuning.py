"""Langfuse's settings for ClickHouse change what exports send, and where."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from cli import build
from cli.doctor import diagnose
from config.settings import load
from pipeline.read.clickhouse_settings import LAZY_MATERIALIZATION, TOP_K_THROUGH_JOIN, Switch, switch_off
from tests.services.stacks import Stack
from tests.support.databases import EVENT, Databases
from tests.support.http_proxy import HttpProxy, Request, http_proxy
from tests.support.responses import reply
from tests.support.tables import READINGS

pytestmark = pytest.mark.clickhouse

EVENTS_READINGS = {("events", False), *((table, True) for table, events in READINGS if events)}


@contextmanager
def recording(url: str) -> Iterator[tuple[HttpProxy, list[Request]]]:
    """Run a proxy, and list the requests that it gets."""
    seen: list[Request] = []

    def record(request: Request) -> bool:
        seen.append(request)
        return False

    with http_proxy(url) as proxy:
        proxy.add(record, reply(500, b""))
        yield proxy, seen


def sent_settings(databases: Databases, url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of the statement that reads the rows."""
    with recording(url) as (proxy, seen):
        settings = load({**environment, "CLICKHOUSE_URL": proxy.url})
        replace(databases, sources=build.sources(settings, databases.engine)).read()
    (path,) = {request.path for request in seen if b"`input` AS `c" in request.body}
    return {name: values[0] for name, values in parse_qs(urlsplit(path).query, keep_blank_values=True).items()}


def test_langfuses_settings_are_sent(databases: Databases, stack: Stack) -> None:
    url, environment = databases.sources.clickhouse.url, stack.environment()
    names = (LAZY_MATERIALIZATION, TOP_K_THROUGH_JOIN, "use_query_condition_cache")

    usual = sent_settings(databases, url, environment)
    assert [usual.get(name) for name in names] == [None, None, None]
    assert usual["max_bytes_before_external_group_by"] == str(1 << 30)

    chosen = {
        "CLICKHOUSE_DISABLE_LAZY_MATERIALIZATION": "true",
        "CLICKHOUSE_DISABLE_TOP_K_THROUGH_JOIN": "true",
        "CLICKHOUSE_USE_QUERY_CONDITION_CACHE": "false",
        "CLICKHOUSE_MAX_BYTES_BEFORE_EXTERNAL_GROUP_BY": "1000000",
    }
    changed = sent_settings(databases, url, environment | chosen)
    assert [changed.get(name) for name in names] == ["0", "0", "0"]
    assert changed["max_bytes_before_external_group_by"] == "1000000"


@pytest.mark.parametrize(
    ("version", "off"),
    [
        ("25.3.9.1", set()),
        ("25.4.1.2934", {LAZY_MATERIALIZATION}),
        ("25.8.1.1.altinitystable", {LAZY_MATERIALIZATION}),
        ("26.4.1.1005", set()),
        ("26.5.1.651", {TOP_K_THROUGH_JOIN}),
        ("26.5.6.70", set()),
        ("26.7.2.11", set()),
        ("26.9.2.1", set()),
        ("unknown", set()),
    ],
)
def test_versions_with_a_bug_in_an_optimization_go_without_it(version: str, off: set[str]) -> None:
    switches = {LAZY_MATERIALIZATION: Switch.AUTO, TOP_K_THROUGH_JOIN: Switch.AUTO}
    assert set(switch_off(switches, version)) == off
    assert switch_off(dict.fromkeys(switches, Switch.ON), version) == {}
    assert set(switch_off(dict.fromkeys(switches, Switch.OFF), version)) == set(switches)


def test_tables_of_events_are_read_from_their_own_server(databases: Databases, stack: Stack) -> None:
    databases.put("events_full", EVENT)
    url = databases.sources.clickhouse.url
    with recording(url) as (usual, of_usual), recording(url) as (special, of_special):
        urls = {"CLICKHOUSE_READ_ONLY_URL": usual.url, "CLICKHOUSE_EVENTS_READ_ONLY_URL": special.url}
        sources = build.sources(load({**stack.environment(), **urls}), databases.engine)
        for table, events in READINGS:
            of_usual.clear()
            of_special.clear()
            replace(databases, sources=sources).read(tableName=table, useEventsTable=events)
            asked = (of_special, of_usual) if (table, events) in EVENTS_READINGS else (of_usual, of_special)
            assert not asked[1], (table, events)


def test_the_doctor_and_the_readiness_check_try_both_servers(
    databases: Databases, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**stack.environment(), "CLICKHOUSE_EVENTS_READ_ONLY_URL": "http://127.0.0.1:9"}
    with pytest.raises(Exception, match="connection refused"):
        build.checks(load(environment), databases.engine)["clickhouse"]()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert "connection refused" in " ".join(diagnose()["clickhouse"].reasons)
