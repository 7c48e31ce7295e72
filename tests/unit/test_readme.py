"""The README names every setting and every metric that there is."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from config.metrics import Metrics
from config.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_every_setting_is_named() -> None:
    names = {str(field.alias) for field in Settings.model_fields.values()}

    assert names - set(re.findall(r"`([A-Z][A-Z0-9_]+)`", README)) == set()


def test_every_metric_is_named() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    names = {f"{each.name}_total" if each.type == "counter" else each.name for each in registry.collect()}

    assert names - set(re.findall(r"`(waybill_[a-z_]+)", README)) == set()
