"""Waybill's image runs an export in containers that have no rights, as the chart's have none."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, select

from cli.build import clickhouse_client, engine
from config.settings import load
from config.tables import users
from embedded.sample import PROJECTS, fill
from embedded.schema import create_langfuse_schema
from embedded.stack import Stack as Parts
from tests.containers import images
from tests.containers.containers import (
    CONFINED,
    VALUES,
    Containers,
    answers,
    check_confinement,
    environment_options,
)
from tests.containers.engine import podman
from tests.services.kafka import Kafka
from tests.services.postgres import Postgres
from tests.services.process import free_port
from tests.services.s3 import S3
from tests.services.smtp import Smtp
from tests.services.stacks import Real, RealStack
from tests.support.daemons import eventually

pytestmark = pytest.mark.timeout(1200)  # the images are built first, where they are new
ROWS = 2_000
GRACE = 90
"""Seconds between SIGTERM and SIGKILL in the chart: WAYBILL_DRAIN_SECONDS + 60."""


@pytest.fixture(scope="module")
def image(containers: Containers) -> str:  # noqa: ARG001 (it skips)
    return images.waybill()


@pytest.fixture(scope="module")
def services(
    kafka: Kafka, postgres: Postgres, s3: S3, smtp: Smtp, embedded: Parts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealStack]:
    with Real(kafka, postgres, s3, smtp, embedded.clickhouse).stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def database(services: RealStack) -> Iterator[Engine]:
    settings = load(services.environment())
    opened = engine(settings)
    with clickhouse_client(settings) as client:
        create_langfuse_schema(client, opened)
        fill(client, opened, rows=ROWS)
    yield opened
    opened.dispose()


def test_the_image_is_the_users_own_and_has_nothing_of_the_machine_that_built_it(image: str) -> None:
    described: dict[str, Any] = json.loads(podman("image", "inspect", image))[0]["Config"]

    assert described["User"] == "10001:10001"
    assert described["Entrypoint"] == ["waybill"]
    assert {each.partition("=")[0] for each in described["Env"]} == {
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONUNBUFFERED",
        "PIP_NO_CACHE_DIR",
        "PIP_DISABLE_PIP_VERSION_CHECK",
        "WAYBILL_LOG_FORMAT",
    }


def test_an_export_runs_in_containers_without_rights(
    containers: Containers, image: str, services: RealStack, database: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = services.environment()
    common = ["--network=host", *CONFINED, *environment_options(environment)]
    containers.run(image, "migrate", options=common)
    doctor = containers.run(image, "doctor", options=common)
    assert "FAIL" not in doctor

    consumer = _Daemon(containers, image, "consumer", common)
    notifier = _Daemon(containers, image, "notify", common)
    with database.connect() as connection:
        user = connection.execute(select(users.c.id).where(users.c.email.is_not(None))).scalars().first()
    created = json.loads(
        consumer.container.execute("waybill", "create", PROJECTS[0], "--user", str(user), "--wait", "--json")
    )
    eventually(services.mails, what="an email arrives")

    assert created["status"] == "COMPLETED"
    for daemon in (consumer, notifier):
        check_confinement(daemon.container, daemon.memory_limit)
    for daemon in (consumer, notifier):
        assert daemon.container.stop(GRACE) == 0
    with capsys.disabled():
        size = int(podman("image", "inspect", "--format", "{{.Size}}", image))
        print(f"\nimage: {size / 1e6:.0f} MB\n{consumer}\n{notifier}")


class _Daemon:
    """A daemon in a container that has the memory of the chart."""

    def __init__(self, containers: Containers, image: str, name: str, options: list[str]) -> None:
        self.name, self.memory_limit = name, VALUES[name]["resources"]["limits"]["memory"]
        url = f"http://127.0.0.1:{(port := free_port())}"
        extra = {"WAYBILL_INTERNAL_PORT": str(port), "WAYBILL_HTTP_PORT": "0"}
        began = time.monotonic()
        limit = f"--memory={self.memory_limit.removesuffix('i')}"
        self.container = containers.start(name, image, name, options=[*options, *environment_options(extra), limit])
        eventually(lambda: self.container.running() and answers(f"{url}/readyz"), what=f"{name} is ready")
        self.seconds = time.monotonic() - began
        self.memory, self.working_set = self.container.memory(), self.container.working_set()

    def __str__(self) -> str:
        resident, counted = (each / 2**20 for each in (self.memory, self.working_set))
        return f"{self.name}: ready after {self.seconds:.1f} s, {resident:.0f} MiB, working set {counted:.0f} MiB"
