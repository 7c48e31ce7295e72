"""The overlay on Langfuse's docker-compose.yml exports what Langfuse's web asks for by its rows and its jobs."""

import json
import re
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tests.bridge.queue import PROJECT, SCRIPT, ExportQueue, new_ids
from tests.containers.compose import Compose, start_compose
from tests.containers.containers import Containers
from tests.containers.images import ROOT
from tests.services import bridge
from tests.services.redis import Redis
from tests.support.daemons import eventually

OVERLAY = ROOT / "deploy/langfuse.override.yml"
FILES = (Path(__file__).with_name("langfuse.yml"), OVERLAY)
STAND_INS = {
    "clickhouse": "clickhouse",
    "mail": "mail",
    "minio": "s3",
    "postgres": "postgres",
    "redis": "redis",
    "waybill-kafka": "kafka",
}
VARIABLES = {
    "WAYBILL_SOURCE": str(ROOT),
    "EMAIL_FROM_ADDRESS": "exports@langfuse.local",
    "SMTP_CONNECTION_URL": "smtp://mail:1025",
}
ENDING = {"langfuse-web", "waybill-migrate", "waybill-topics"}
DATABASE = "postgresql://postgres:postgres@127.0.0.1:5432/postgres"
REDIS = Redis(6379, 0, "myredissecret")
ERRORS = re.compile(r'"level": ?"(ERROR|CRITICAL)"(?!.*GroupCoordinatorNotAvailable)|Traceback')


@pytest.fixture(scope="module")
def langfuse(containers: Containers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    folder = tmp_path_factory.mktemp("langfuse")
    with start_compose(f"langfuse-{containers.owner}", folder, FILES, STAND_INS, VARIABLES) as stack:
        yield stack


@pytest.mark.timeout(1500)  # the images are built first, where they are new
def test_exports_that_langfuse_asks_for_are_made_and_their_users_get_emails(langfuse: Compose, tmp_path: Path) -> None:
    langfuse.run("up", "--detach", seconds=480)
    eventually(lambda: set(langfuse.health().values()) == {"healthy"}, what="every service is healthy", seconds=180)
    queue = ExportQueue(REDIS, bridge.lay_out(tmp_path / "bridge", SCRIPT).parents[1] / SCRIPT.name)
    exports = new_ids(10)
    _insert(*exports)
    queue.add_exports(*exports)

    eventually(lambda: _count_attempts("completed") == len(exports), what="every export is completed", seconds=180)
    eventually(lambda: _count_emails() == len(exports), what="every user has an email", seconds=180)
    assert queue.empty()
    published = [json.loads(line) for line in langfuse.logs("waybill-bridge").splitlines() if "published" in line]
    assert sorted(each["batchExportId"] for each in published) == sorted(exports)
    assert _count_attempts() == len(exports)

    states = {name: each["State"] for name, each in langfuse.containers().items()}
    assert {name for name, state in states.items() if state["Status"] == "exited"} == ENDING
    assert all(states[name]["ExitCode"] == 0 for name in ENDING)
    mine = [name for name in states if name.startswith("waybill-") and name != "waybill-kafka"]
    assert {name: found for name in mine if (found := ERRORS.findall(langfuse.logs(name)))} == {}

    langfuse.run("down", "--volumes")
    assert langfuse.left() == []


def _insert(*exports: str) -> None:
    """Insert a user, and rows as Langfuse's web does."""
    query = json.dumps({"tableName": "traces", "filter": [], "orderBy": None})
    now = datetime.now(UTC).replace(tzinfo=None)
    with psycopg.connect(DATABASE) as connection:
        connection.execute("INSERT INTO projects (id, name) VALUES (%s, 'Mine')", (PROJECT,))
        connection.execute("INSERT INTO users (id, name, email) VALUES ('ada', 'Ada', 'ada@example.test')")
        for each in exports:
            connection.execute(
                "INSERT INTO batch_exports"
                " (id, project_id, user_id, name, status, query, format, created_at, updated_at)"
                " VALUES (%s, %s, 'ada', 'Traces', 'QUEUED', %s, 'CSV', %s, %s)",
                (each, PROJECT, query, now, now),
            )


def _count_attempts(outcome: str | None = None) -> int:
    wanted = "SELECT count(*) FROM waybill_runs WHERE %s::text IS NULL OR outcome = %s"
    with psycopg.connect(DATABASE) as connection:
        (count,) = connection.execute(wanted, (outcome, outcome)).fetchone() or (0,)
    return int(count)


def _count_emails() -> int:
    with urllib.request.urlopen("http://127.0.0.1:8025/api/v1/messages?limit=200", timeout=30) as answer:
        return len(json.load(answer)["messages"])
