"""The pods of the chart run an export in containers: with its probes, its security context, its jobs and its test."""

import base64
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from cli.build import clickhouse_client, engine
from config.settings import load
from config.tables import langfuse
from embedded.sample import PROJECTS, fill
from embedded.schema import create_clickhouse_tables
from tests.containers import images
from tests.containers.compose import SERVICES, Compose, start_compose
from tests.containers.containers import Containers, check_confinement
from tests.pods.kubelet import Kubelet, Manifest, Pod, create_secrets, remove_secrets
from tests.services.installed import cache_folder, pinned
from tests.services.stacks import clickhouse_database
from tests.support.daemons import eventually

CHART = images.ROOT / "helm"
NEEDED = ("kafka", "postgres", "clickhouse", "s3", "bucket", "mail")
INSIDE: dict[str, str] = SERVICES["consumer"]["environment"]
STORE = {name: INSIDE[name] for name in INSIDE if name.startswith("LANGFUSE_S3_BATCH_EXPORT") and "KEY" not in name}
KEYS = [
    {"name": name, "value": INSIDE[name]}
    for name in ("LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID", "LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY")
]
ROWS = 500
LINK = re.compile(r"https?://[\w.:-]+(/d/[\w.~-]+)")
SCENARIOS: dict[str, dict[str, Any]] = {
    "minimal": {"consumer": {"replicas": 1}, "pod": {"extraEnv": KEYS}},
    "production": {
        "settings": {
            "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "CLICKHOUSE_READ_ONLY_URL": INSIDE["CLICKHOUSE_URL"],
            "WAYBILL_TOPIC_REPLICATION": 1,
        },
        "secrets": {"kafka": {"existingSecret": "", "caSecret": ""}},
        "consumer": {"replicas": 2},
        "notify": {"replicas": 1},
        "pod": {"extraEnv": KEYS},
    },
    "air-gapped": {
        "settings": {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"},
        "consumer": {"replicas": 1},
        "hooks": {"topics": True},
        "privateCA": {"existingSecret": ""},
    },
}
"""The changes to the values in helm/ci without which pods can't use the services of docker-compose.yml: these have no
TLS, one broker and no roles of a cloud. The machine has no room for more pods."""


@pytest.fixture(scope="module")
def compose(containers: Containers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    with start_compose(f"waybill-{containers.owner}", tmp_path_factory.mktemp("compose")) as stack:
        stack.run("up", "--detach", *NEEDED)
        eventually(lambda: set(stack.health().values()) == {"healthy"}, what="the services are healthy")
        yield stack


@pytest.fixture(scope="module")
def image(compose: Compose) -> str:  # noqa: ARG001 (it makes the image)
    return images.waybill()


@contextmanager
def _databases(scenario: str) -> Iterator[dict[str, str]]:
    """Create databases with Langfuse's tables and a few rows; yields the settings that name them to a pod."""
    name, clickhouse = scenario.replace("-", "_"), "http://127.0.0.1:8123"
    address = "postgresql://waybill:waybill@127.0.0.1:5432"
    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    with clickhouse_database(clickhouse) as clickhouse_db:
        here = {"DATABASE_URL": f"{address}/{name}", "CLICKHOUSE_URL": clickhouse, "CLICKHOUSE_DB": clickhouse_db}
        settings = load(INSIDE | here)
        opened = engine(settings)
        langfuse.create_all(opened)
        with clickhouse_client(settings) as client:
            create_clickhouse_tables(client)
            fill(client, opened, rows=ROWS)
        opened.dispose()
        yield {"DATABASE_URL": f"postgresql://waybill:waybill@postgres:5432/{name}", "CLICKHOUSE_DB": clickhouse_db}


@pytest.mark.timeout(1200)  # the images are built first, where they are new
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_export_runs_in_the_pods_of_the_chart(
    scenario: str, compose: Compose, image: str, containers: Containers, tmp_path: Path
) -> None:
    kubelet = Kubelet(containers, f"{compose.project}_default", tmp_path)
    with _databases(scenario) as databases, ExitStack() as running:
        manifests = _render(scenario, image, databases["CLICKHOUSE_DB"], tmp_path)
        manifests += _secrets(databases["DATABASE_URL"])
        create_secrets(manifests)
        running.callback(remove_secrets, manifests)

        printed = kubelet.run_jobs(manifests)
        assert "export-requests" in printed["topics"]
        pods = {
            name: [running.enter_context(kubelet.play(name, template, manifests)) for _ in range(replicas)]
            for name, replicas, template in _deployments(manifests)
        }
        for pod in (pod for each in pods.values() for pod in each):
            pod.await_start()
            check_confinement(pod.container, pod.spec["containers"][0]["resources"]["limits"]["memory"])
        (test,) = (each for each in manifests if each["kind"] == "Pod")
        kubelet.run_to_end("doctor", test, manifests, 120)

        created = _export(pods["consumer"][0], scenario)
        assert created["status"] == "COMPLETED"
        assert len(_open_link(pods["consumer"][-1], scenario)) == created["bytes"]
        assert [pod.stop() for each in pods.values() for pod in each] == [0 for each in pods.values() for _ in each]


def _render(scenario: str, image: str, clickhouse_db: str, folder: Path) -> list[Manifest]:
    """Render the chart with the values of helm/ci, as an installation does, for the services and the image here."""
    repository, _, tag = image.rpartition(":")
    changes = SCENARIOS[scenario]
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": INSIDE["KAFKA_BOOTSTRAP_SERVERS"],
        "CLICKHOUSE_URL": INSIDE["CLICKHOUSE_URL"],
        "CLICKHOUSE_DB": clickhouse_db,
        "EMAIL_FROM_ADDRESS": INSIDE["EMAIL_FROM_ADDRESS"],
        "WAYBILL_PUBLIC_URL": "http://links.test",
        "WAYBILL_REQUESTS_TOPIC": f"export-requests-{scenario}",
        "WAYBILL_COMPLETIONS_TOPIC": f"export-completions-{scenario}",
        "WAYBILL_DEAD_LETTER_TOPIC": f"export-dead-letters-{scenario}",
        **STORE,
    }
    used = {name: {"existingSecret": f"waybill-{name}"} for name in ("links", "smtp")}
    overrides = {
        **changes,
        "global": {"imageRegistry": ""},
        "image": {"registry": "", "repository": repository, "tag": tag, "digest": ""},
        "settings": settings | changes.get("settings", {}),
        "secrets": {**changes.get("secrets", {}), **used},
    }
    file = folder / "overrides.yaml"
    file.write_text(yaml.safe_dump(overrides))
    helm = cache_folder() / f"helm-{pinned()['HELM']}"
    values = CHART / "ci" / f"{scenario}-values.yaml"
    options = ("--kube-version=1.33.0", f"--values={values}", f"--values={file}")
    command = [str(helm), "template", "waybill", str(CHART), *options]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [each for each in yaml.safe_load_all(rendered) if each]


def _secrets(database: str) -> list[Manifest]:
    """The Secrets that docs/install.md tells to create."""
    contents = {
        "waybill-database": {"DATABASE_URL": database},
        "waybill-clickhouse": {"CLICKHOUSE_PASSWORD": "waybill"},
        "waybill-s3": {each["name"]: each["value"] for each in KEYS},
        "waybill-smtp": {"SMTP_CONNECTION_URL": INSIDE["SMTP_CONNECTION_URL"]},
        "waybill-links": {"WAYBILL_SECRET_KEY": "0123456789abcdef0123456789abcdef"},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
        }
        for name, values in contents.items()
    ]


def _deployments(manifests: list[Manifest]) -> Iterator[tuple[str, int, Manifest]]:
    for each in manifests:
        if each["kind"] == "Deployment":
            spec = each["spec"]
            yield each["metadata"]["labels"]["app.kubernetes.io/component"], spec["replicas"], spec["template"]


def _export(pod: Pod, name: str) -> dict[str, Any]:
    command = ["waybill", "create", PROJECTS[0], "--user", "user-1", "--name", name, "--wait", "--json"]
    created: dict[str, Any] = json.loads(pod.container.execute(*command))
    return created


def _open_link(pod: Pod, name: str) -> bytes:
    """Open the link that was emailed, through a pod's port for links."""
    text = eventually(lambda: next((each for each in _emails() if name in each), None), what="an email arrives")
    (path,) = set(LINK.findall(text))
    with urllib.request.urlopen(pod.url("links") + path) as answer:
        assert answer.url.startswith("http://localhost:7070/exports/")
        content: bytes = answer.read()
        return content


def _emails() -> list[str]:
    listed = _get_json("http://127.0.0.1:8025/api/v1/messages")["messages"]
    return [str(_get_json(f"http://127.0.0.1:8025/api/v1/message/{each['ID']}")["Text"]) for each in listed]


def _get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)
