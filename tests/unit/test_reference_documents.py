"""The pages of settings, metrics and guards say what the code declares."""

import json
import re
from collections.abc import Iterable
from typing import get_args

from prometheus_client import CollectorRegistry

from config import labels
from config.metrics import Metrics
from config.settings import Settings
from consumer.guards import GUARDS, enabled, exists
from pipeline.tables import TABLES
from runtime.self_metrics import MemoryLimit
from tests.support.documents import ROOT, tables

UNSET = "unset"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def names(cell: str) -> list[str]:
    """What a cell sets as code."""
    return re.findall(r"`([^`]*)`", cell)


def default_of(name: str) -> str:
    """The default of a setting, as an environment variable would have it."""
    default = next(field.default for field in Settings.model_fields.values() if field.alias == name)
    default = getattr(default, "get_secret_value", lambda: default)()
    if default in {None, ""}:
        return UNSET
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_every_setting_is_listed_once_with_its_default() -> None:
    rows = [cells for cells in tables(page("settings.md")) if len(cells) == 3 and re.match(r"`[A-Z]", cells[0])]
    listed = [(names(cells[0])[0], cells[1].strip("`")) for cells in rows if len(names(cells[0])) == 1]

    declared = [str(field.alias) for field in Settings.model_fields.values()]

    assert sorted(listed) == sorted((name, default_of(name)) for name in declared)


def test_the_chart_knows_the_settings_of_waybill_and_refuses_those_that_it_sets() -> None:
    names = json.loads((ROOT / "helm/values.schema.json").read_text())["properties"]["settings"]["propertyNames"]
    declared = {str(field.alias) for field in Settings.model_fields.values()}

    refused = {each for each in names["not"]["enum"] if each.startswith("WAYBILL_")}
    (known,) = (each["enum"] for each in names["anyOf"] if "enum" in each)

    assert known == sorted(known)
    assert {*known, *refused} == {each for each in declared if each.startswith("WAYBILL_")}
    assert refused <= declared


def test_every_metric_is_listed_once_with_its_type_and_labels() -> None:
    rows = [cells for cells in tables(page("metrics.md")) if cells[0].startswith("`waybill_")]
    listed = [(names(cells[0])[0], cells[1], tuple(names(cells[2]))) for cells in rows]

    registry = CollectorRegistry()
    metrics = Metrics(registry)
    registry.register(MemoryLimit())
    counted = [getattr(each, "metric", each) for each in vars(metrics).values()]
    # The client has no public way to ask for the names of labels.
    named = {each._name: each._labelnames for each in counted if hasattr(each, "_labelnames")}
    declared = [
        (f"{each.name}_total" if each.type == "counter" else each.name, each.type, tuple(named.get(each.name, ())))
        for each in registry.collect()
        if each.name != "waybill_build_info"
    ]

    assert sorted(row for row in listed if row[0] != "waybill_build_info") == sorted(declared)
    assert ("waybill_build_info", "gauge", ("version",)) in listed


def listed_values(row: str) -> set[str]:
    """The values that the page of metrics lists for a label."""
    return next(set(names(cells[1])) for cells in tables(page("metrics.md")) if cells[0] == row)


def as_text(values: Iterable[str]) -> set[str]:
    return {str(value) for value in values}


def test_every_value_of_a_label_is_listed() -> None:
    assert listed_values("`verdict`") == as_text(labels.Verdict)
    assert listed_values("`outcome` of exports") == as_text(labels.Outcome)
    assert listed_values("`reason`") == as_text(labels.Failure)
    assert listed_values("`stage`") == set(get_args(labels.Stage))
    assert listed_values("`outcome` of notices") == as_text(labels.NoticeOutcome)
    assert listed_values("`outcome` of downloads") == {"redirected", "served", *as_text(labels.NoFile)}


def test_every_guard_is_listed_in_its_order() -> None:
    section = page("exports.md").partition("**Guards**")[2].partition("After the guards")[0]
    rows = [cells[0].replace(" ", "_") for cells in tables(section)]

    assert rows[1:] == [guard.__name__ for guard in (enabled, exists, *GUARDS)]


def test_every_table_is_listed() -> None:
    row = next(cells[1] for cells in tables(page("exports.md")) if cells[0] == "`tableName`")

    assert set(TABLES) <= set(names(row))
