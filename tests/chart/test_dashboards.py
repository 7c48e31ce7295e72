"""Every dashboard can be read by Grafana, says what its numbers are, and asks queries that Prometheus takes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.tools import CHART, run

DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
BY_NAME = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
RUNBOOKS = "http://localhost:6068"
SCHEMA_VERSION = 41
"""That of Grafana 12."""


def read(path: Path) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(path.read_text())
    return dashboard


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(path: Path) -> Iterator[str]:
    """Every query of the panels, with Grafana's variables filled in."""
    for panel in panels(read(path)):
        for target in panel["targets"]:
            filled = target["expr"].replace("$__rate_interval", "5m")
            yield re.sub(r"\$(namespace|job)", ".*", filled)


@BY_NAME
def test_it_has_a_name_that_stays_and_the_schema_of_today(path: Path) -> None:
    dashboard = read(path)

    assert dashboard["uid"] == path.stem
    assert "id" not in dashboard
    assert dashboard["schemaVersion"] == SCHEMA_VERSION


@BY_NAME
def test_source_namespace_and_job_can_be_chosen(path: Path) -> None:
    variables = {each["name"]: each for each in read(path)["templating"]["list"]}

    assert list(variables) == ["datasource", "namespace", "job"]
    assert all(variables[name]["datasource"]["uid"] == "${datasource}" for name in ("namespace", "job"))


@BY_NAME
def test_every_panel_has_a_unit_a_description_and_the_chosen_source(path: Path) -> None:
    for panel in panels(read(path)):
        sources = [panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])]

        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert set(sources) == {"${datasource}"}, panel["title"]


@BY_NAME
def test_panels_have_their_own_id_and_place(path: Path) -> None:
    every = read(path)["panels"]
    cells = [
        (x, y)
        for panel in every
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len({panel["id"] for panel in every}) == len(every)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@BY_NAME
def test_every_query_sees_only_what_was_chosen(path: Path) -> None:
    for panel in panels(read(path)):
        for target in panel["targets"]:
            metrics = re.findall(r"\b(?:waybill|process)_\w+\b(?=\{|\[)", target["expr"])
            chosen = target["expr"].count('{namespace=~"$namespace", job=~"$job"')

            assert chosen == len(metrics), f"{panel['title']}: {target['expr']}"


@BY_NAME
def test_prometheus_can_read_every_query(path: Path, tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries(path))]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))

    run("promtool", "check", "rules", "--lint=none", file)


@BY_NAME
def test_alerts_are_shown_and_panels_lead_to_runbooks_that_there_are(path: Path) -> None:
    dashboard = read(path)
    links = [link["url"] for panel in panels(dashboard) for link in panel.get("links", [])]
    named = {link.removeprefix(f"{RUNBOOKS}/").removesuffix(".md") for link in links if link != RUNBOOKS}

    assert any("ALERTS{" in query for query in queries(path))
    assert "ALERTS{" in dashboard["annotations"]["list"][0]["expr"]
    assert named
    assert named <= {each.stem for each in (CHART / "runbooks").glob("*.md")}


def test_every_runbook_is_linked_from_a_dashboard() -> None:
    text = "".join(path.read_text() for path in DASHBOARDS)

    assert [each.stem for each in (CHART / "runbooks").glob("*.md") if f"{RUNBOOKS}/{each.name}" not in text] == []


def test_the_chart_ships_the_dashboards_with_links_to_where_runbooks_are() -> None:
    values = ("-f", "ci/monitoring-values.yaml", "--kube-version", "1.37.0")
    shipped = yaml.safe_load(run("helm", "template", ".", "-s", "templates/dashboards.yaml", *values))

    assert shipped["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert shipped["data"].keys() == {path.name for path in DASHBOARDS}
    for path in DASHBOARDS:
        moved = path.read_text().replace(RUNBOOKS, "https://runbooks.example.com/waybill")
        assert json.loads(shipped["data"][path.name]) == json.loads(moved)


def test_the_chart_ships_the_dashboards_without_links_where_nobody_says_where_runbooks_are() -> None:
    values = ("-f", "ci/monitoring-values.yaml", "--kube-version", "1.37.0", "--set", "runbooksUrl=")
    shipped = yaml.safe_load(run("helm", "template", ".", "-s", "templates/dashboards.yaml", *values))

    for path in DASHBOARDS:
        own = read(path)
        for panel in own["panels"]:
            panel.pop("links", None)
        assert json.loads(shipped["data"][path.name]) == own
