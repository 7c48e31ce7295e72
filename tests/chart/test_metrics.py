"""Dashboards and alerts name metrics that there are, and every metric is of use in one of them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from runtime.self_metrics import build_metrics
from tests.chart.tools import CHART

NAME = re.compile(r"\b((?:waybill|process)_[a-z_]+)\b")


def exposed() -> Iterator[str]:
    """Every metric as queries name it, of Waybill and of its process."""
    for metric in build_metrics().registry.collect():
        yield {"counter": f"{metric.name}_total", "histogram": f"{metric.name}_bucket"}.get(metric.type, metric.name)


def expressions() -> Iterator[str]:
    for path in (CHART / "rules").glob("*.yaml"):
        yield yaml.safe_load(path.read_text())["groups"][0]["rules"][0]["expr"]
    for path in (CHART / "dashboards").glob("*.json"):
        dashboard: dict[str, Any] = json.loads(path.read_text())
        yield from (target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", []))
        yield from (each["definition"] for each in dashboard["templating"]["list"] if "definition" in each)
    for path in (CHART / "templates").glob("*.yaml"):
        yield path.read_text()


def test_dashboards_rules_and_scalers_name_metrics_that_there_are() -> None:
    named = {name for expression in expressions() for name in NAME.findall(expression)}

    assert named - set(exposed()) == set()


def test_every_metric_is_on_a_dashboard_or_in_a_rule() -> None:
    ours = {name for name in exposed() if name.startswith("waybill_")}

    assert ours - {name for expression in expressions() for name in NAME.findall(expression)} == set()
