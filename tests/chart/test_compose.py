"""docker-compose.yml shows the chart's own dashboards, alerts and runbooks, and its load is mixed exports."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import create_engine, select

from config.settings import Settings
from config.settings import load as load_settings
from config.tables import batch_exports
from pipeline.types import CODECS, FORMATS
from tests.chart.tools import CHART, ROOT, run
from tests.services.stacks import Stack
from tests.support.daemons import waybill

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def mounts(service: str) -> dict[str, Path]:
    """What a service sees of this repository: the files and folders by their paths inside."""
    pairs = [each.split(":") for each in SERVICES[service].get("volumes", [])]
    return {pair[1]: (ROOT / pair[0]).resolve() for pair in pairs if pair[0].startswith("./")}


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_is_there_and_read_only(service: str) -> None:
    ours = [each for each in SERVICES[service].get("volumes", []) if each.startswith("./")]

    assert all(path.exists() for path in mounts(service).values())
    assert all(each.endswith(":ro") for each in ours)


@pytest.mark.parametrize("service", SERVICES)
def test_images_have_a_version_and_ports_stay_on_this_machine(service: str) -> None:
    image = SERVICES[service]["image"]

    assert image == "waybill" or ":" in image
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", []))


def test_waybill_is_given_only_settings_that_it_reads() -> None:
    known = {str(field.alias) for field in Settings.model_fields.values()}

    assert set(SERVICES["consumer"]["environment"]) <= known


def test_emails_link_to_the_address_of_the_consumer_on_this_machine() -> None:
    settings = load_settings(SERVICES["notify"]["environment"])
    published, _ = SERVICES["consumer"]["ports"]
    address, _, inside = published.rpartition(":")

    assert settings == load_settings(SERVICES["consumer"]["environment"])
    assert settings.secret_keys
    assert settings.public_url == f"http://{address}".replace("127.0.0.1", "localhost")
    assert inside == "6066"


def test_prometheus_loads_the_rules_of_the_chart() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    (pattern,) = config["rule_files"]

    assert mounts("prometheus")[str(Path(pattern).parent)] == CHART / "rules"
    assert {job["job_name"] for job in config["scrape_configs"]} == {"waybill-consumer", "waybill-notify"}
    run("promtool", "check", "config", "--syntax-only", ROOT / "deploy/prometheus.yml")


def test_grafana_shows_the_dashboards_of_the_chart() -> None:
    inside = mounts("grafana")
    (provider,) = yaml.safe_load((ROOT / "deploy/grafana/dashboards.yml").read_text())["providers"]

    assert inside[provider["options"]["path"]] == CHART / "dashboards"
    assert inside["/etc/grafana/provisioning/dashboards/waybill.yml"] == ROOT / "deploy/grafana/dashboards.yml"


def test_links_to_runbooks_lead_to_the_runbooks_of_the_chart() -> None:
    assert mounts("runbooks") == {"/runbooks": CHART / "runbooks"}
    assert SERVICES["runbooks"]["ports"] == ["127.0.0.1:6068:6068"]


def test_the_load_asks_for_mixed_exports_and_fills_the_tables_once(stack: Stack) -> None:
    environment = stack.environment()
    assert waybill("migrate", "--with-application-schema", environment=environment).returncode == 0

    for _ in range(2):
        told = subprocess.run(
            [sys.executable, ROOT / "deploy/load.py"],
            env={**os.environ, **environment, "LOAD_TRACES": "20", "LOAD_EXPORTS": "30"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stderr

    engine = create_engine(load_settings(environment).database)
    with engine.connect() as connection:
        rows = connection.execute(select(batch_exports.c.format, batch_exports.c.status, batch_exports.c.query)).all()
    engine.dispose()
    formats, statuses = Counter(row.format for row in rows), Counter(row.status for row in rows)
    assert statuses == {"QUEUED": 54, "CANCELLED": 6}
    assert set(formats) == set(FORMATS)
    assert {row.query["compression"] for row in rows} == set(CODECS)
    assert len({row.query["tableName"] for row in rows}) > 5
    assert any(row.query["filter"] for row in rows)
