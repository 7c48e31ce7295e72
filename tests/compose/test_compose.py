"""docker-compose.yml starts as it is, serves a mixed load, and leaves nothing behind."""

import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.containers.compose import SERVICES, Compose, start_compose
from tests.containers.containers import Containers
from tests.support.daemons import eventually

LEFT_OUT = {"grafana"}
ENDING = {"migrate", "topics", "bucket", "load"}
EXPORTS = 40
DATABASE = "postgresql://waybill:waybill@127.0.0.1:5432/waybill"
LINK = re.compile(r"http://localhost:6066/d/[\w.~-]+")
ERRORS = {
    "kafka": re.compile(r"Exception|Error:"),
    "postgres": re.compile(r"(ERROR|FATAL|PANIC):(?!  the database system is starting up)"),  # its health check asks
    "clickhouse": re.compile(r"^\w+Error\b(?!: \[Errno (32|104)\])"),  # clients may reset their connections
    "s3": re.compile(r"(?i)\b(error|panic)\b|\| 5\d\d \|"),
    "bucket": re.compile(r"(?i)traceback|argument"),
    "mail": re.compile(r"level=(error|fatal)"),
    "prometheus": re.compile(r"level=ERROR"),
    "load": re.compile(r"Traceback"),
    "runbooks": re.compile(r"Traceback"),
}
WAYBILL_ERRORS = re.compile(r'"level": ?"(ERROR|CRITICAL)"(?!.*GroupCoordinatorNotAvailable)|Traceback')
"""What is an error in the log of a service. The broker here has no logger: it prints only what it dies of. It has
no coordinator until it has made the topic of offsets for the first group."""


@pytest.fixture(scope="module")
def compose(containers: Containers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    with start_compose(f"waybill-{containers.owner}", tmp_path_factory.mktemp("compose")) as stack:
        yield stack


@pytest.mark.timeout(1500)  # the images are built first, where they are new
def test_the_stack_serves_a_mixed_load_and_leaves_nothing(compose: Compose) -> None:
    compose.run("--profile=load", "up", "--detach", seconds=480)
    eventually(lambda: set(compose.health().values()) == {"healthy"}, what="every service is healthy", seconds=180)
    eventually(lambda: _state(compose, "load")["Status"] == "exited", what="the load ends", seconds=180)
    eventually(_all_ended, what="every export ends", seconds=180)

    assert set(compose.containers()) == set(SERVICES) - LEFT_OUT
    _check_states(compose)
    _check_exports()
    _check_pages()
    assert {name: errors for name in compose.containers() if (errors := _errors(compose, name))} == {}

    compose.run("--profile=load", "down", "--volumes")
    assert compose.left() == []


def _state(compose: Compose, service: str) -> dict[str, Any]:
    state: dict[str, Any] = compose.containers()[service]["State"]
    return state


def _check_states(compose: Compose) -> None:
    states = {name: each["State"] for name, each in compose.containers().items()}
    assert {name: state["ExitCode"] for name, state in states.items()} == dict.fromkeys(states, 0)
    assert {name for name, state in states.items() if state["Status"] == "exited"} == ENDING
    assert set(compose.health()) == {name for name in set(SERVICES) - LEFT_OUT if "healthcheck" in SERVICES[name]}


def _query(statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(DATABASE) as connection:
        return connection.execute(statement.encode()).fetchall()


def _all_ended() -> bool:
    ended = "status IN ('COMPLETED', 'FAILED', 'CANCELLED')"
    return _query(f"SELECT count(*) FROM batch_exports WHERE {ended}") == [(EXPORTS,)]


def _check_exports() -> None:
    rows = _query("SELECT status, log, query::text FROM batch_exports")
    statuses = Counter(status for status, _, _ in rows)
    assert statuses["COMPLETED"] > EXPORTS / 2
    assert all("colour" in query and "colour" in log for status, log, query in rows if status == "FAILED")
    # Every export that was not cancelled is announced, to its user.
    notices = statuses["COMPLETED"] + statuses["FAILED"]
    sent = "SELECT count(*) FROM waybill_notices WHERE state = 'sent'"
    eventually(lambda: _query(sent) == [(notices,)], what=f"{notices} emails are sent")
    listed = _get_json("http://127.0.0.1:8025/api/v1/messages?limit=200")["messages"]
    assert len(listed) == notices
    ready = next(each for each in listed if "ready" in each["Subject"])
    (link, *_) = LINK.findall(_get_json(f"http://127.0.0.1:8025/api/v1/message/{ready['ID']}")["Text"])
    with urllib.request.urlopen(link) as answer:
        assert answer.url.startswith("http://localhost:7070/exports/")
        assert answer.read()


def _check_pages() -> None:
    """The other pages that the first lines of docker-compose.yml name, and what they show."""
    for path in Path("helm/runbooks").glob("*.md"):
        with urllib.request.urlopen(f"http://127.0.0.1:6068/{path.name}") as answer:
            assert answer.status == 200
    rules = _get_json("http://127.0.0.1:9090/api/v1/rules")["data"]["groups"]
    assert {group["name"] for group in rules} == {path.stem for path in Path("helm/rules").glob("*.yaml")}
    targets = "http://127.0.0.1:9090/api/v1/targets"
    eventually(
        lambda: [each["health"] for each in _get_json(targets)["data"]["activeTargets"]] == ["up", "up"],
        what="Prometheus scrapes both daemons",
    )
    alerts = _get_json("http://127.0.0.1:9090/api/v1/alerts")["data"]["alerts"]
    assert [each["labels"]["alertname"] for each in alerts if each["state"] == "firing"] == []


def _get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def _errors(compose: Compose, service: str) -> list[str]:
    return [line for line in compose.logs(service).splitlines() if ERRORS.get(service, WAYBILL_ERRORS).search(line)]
