"""Every alert fires from what it is for, is quiet otherwise, and has a runbook that helps."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.tools import CHART, ROOT, run

RULES = sorted((CHART / "rules").glob("*.yaml"))
TESTS = sorted((CHART / "rules/tests").glob("*.yaml"))
RUNBOOKS = "http://localhost:6068"
"""Where docker-compose.yml serves helm/runbooks; the chart puts `runbooksUrl` in its place."""


def rule(path: Path) -> dict[str, Any]:
    (group,) = yaml.safe_load(path.read_text())["groups"]
    (only,) = group["rules"]
    found: dict[str, Any] = only
    assert group["name"] == found["alert"] == path.stem
    return found


def test_the_rules_are_valid() -> None:
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_and_are_quiet_as_their_tests_say(path: Path) -> None:
    run("promtool", "test", "rules", path)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_alert_is_tested_firing_and_quiet(path: Path) -> None:
    cases = yaml.safe_load((CHART / "rules/tests" / path.name).read_text())["tests"]
    expected = {bool(alert["exp_alerts"]) for case in cases for alert in case["alert_rule_test"]}

    assert expected == {True, False}


def test_the_quiet_installation_knows_every_alert() -> None:
    quiet = yaml.safe_load((CHART / "rules/tests/quiet.yaml").read_text())

    assert [Path(each).stem for each in quiet["rule_files"]] == [path.stem for path in RULES]
    assert [each["alertname"] for each in quiet["tests"][0]["alert_rule_test"]] == [path.stem for path in RULES]


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_alert_says_what_is_wrong_how_bad_it_is_and_where_help_is(path: Path) -> None:
    alert = rule(path)

    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOKS}/{path.stem}.md"


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_alert_has_a_runbook_with_commands(path: Path) -> None:
    text = (CHART / "runbooks" / f"{path.stem}.md").read_text()
    diagnosis = text.partition("\n## Diagnosis\n")[2].partition("\n## ")[0]

    assert text.startswith(f"# {path.stem}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert "```\n" in diagnosis


def test_every_runbook_has_an_alert() -> None:
    assert [path.stem for path in sorted((CHART / "runbooks").glob("*.md"))] == [path.stem for path in RULES]


def test_the_chart_ships_every_rule_with_what_the_values_say() -> None:
    values = ("-f", "ci/monitoring-values.yaml", "--set", "prometheusRule.disabled={WaybillDeadLetters}")
    made = run("helm", "template", ".", "--kube-version", "1.37.0", "-s", "templates/prometheusrule.yaml", *values)
    shipped = {each["rules"][0]["alert"]: each["rules"][0] for each in yaml.safe_load(made)["spec"]["groups"]}
    queue = rule(CHART / "rules/WaybillQueueTooOld.yaml")

    assert shipped.keys() == {path.stem for path in RULES} - {"WaybillDeadLetters"}
    assert shipped["WaybillQueueTooOld"]["expr"] == queue["expr"]
    assert shipped["WaybillQueueTooOld"]["for"] == "15m"
    assert shipped["WaybillQueueTooOld"]["labels"] == {"severity": "critical", "team": "data"}
    assert shipped["WaybillQueueTooOld"]["annotations"] == queue["annotations"] | {
        "runbook_url": "https://runbooks.example.com/waybill/WaybillQueueTooOld.md"
    }


def test_another_release_does_not_hide_that_one_has_no_consumers(tmp_path: Path) -> None:
    """In the same Prometheus: one in another namespace, and one in the same."""
    values = ("-f", "ci/monitoring-values.yaml", "--kube-version", "1.37.0", "--namespace", "exports")
    made = run("helm", "template", "one", ".", "-s", "templates/prometheusrule.yaml", *values)
    shipped = yaml.safe_load(made)["spec"]
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(shipped))
    (gone,) = (group["rules"][0] for group in shipped["groups"] if group["name"] == "WaybillConsumersGone")
    assert gone["labels"].items() >= {"namespace": "exports", "release": "one"}.items()
    others = [("elsewhere", "one-waybill-consumer-5f-a"), ("exports", "two-waybill-consumer-5f-a")]
    mine = [("exports", "one-waybill-consumer-5f-a"), ("exports", "one-waybill-notify-5f-a")]

    for pods, fires in ((others, True), ([*others, *mine[1:]], True), ([*others, *mine], False)):
        series = [
            {"series": f'waybill_slots{{namespace="{namespace}",pod="{pod}"}}', "values": f"{'20'['notify' in pod]}x80"}
            for namespace, pod in pods
        ]
        alert = {"exp_labels": gone["labels"], "exp_annotations": gone["annotations"]}
        case = {"eval_time": "15m", "alertname": "WaybillConsumersGone", "exp_alerts": [alert] if fires else []}
        test = {"interval": "30s", "input_series": series, "alert_rule_test": [case]}
        path = tmp_path / "test.yaml"
        path.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "30s", "tests": [test]}))
        run("promtool", "test", "rules", path)


def test_alerts_name_the_file_of_their_runbook_where_nobody_says_where_runbooks_are() -> None:
    values = ("-f", "ci/monitoring-values.yaml", "--set", "runbooksUrl=")
    made = run("helm", "template", ".", "--kube-version", "1.37.0", "-s", "templates/prometheusrule.yaml", *values)

    for group in yaml.safe_load(made)["spec"]["groups"]:
        annotations = group["rules"][0]["annotations"]
        assert annotations.keys() == {"summary", "description", "runbook"}
        assert (ROOT / annotations["runbook"]).is_file()
