"""Prometheus: scrapes what a test names, every other second, and evaluates Waybill's alerts on a faster clock."""

import contextlib
import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.services import installed
from tests.services.installed import Availability
from tests.services.process import Program, accepts, free_port, serving

SCALE = 60
"""How many times faster than in production time passes for the rules: a minute of theirs is a second of the test's."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"\b(\d+)([smhd])\b")
_BARE_SECONDS = re.compile(r"(?<![\w.])(\d{2,})(?![\w.])")
_NAMESPACE = "waybill"


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str
    targets: Path

    def scrape(self, jobs: Mapping[str, list[str]]) -> None:
        """Scrape these URLs from now on, by job."""
        groups = [
            {"targets": [url.removeprefix("http://") for url in urls], "labels": {"job": job, "namespace": _NAMESPACE}}
            for job, urls in jobs.items()
        ]
        new = self.targets.with_suffix(".new")
        new.write_text(json.dumps(groups))
        new.replace(self.targets)

    def query(self, expression: str) -> list[float]:
        """The values of all series that a query gives now; NaN, which a panel does not draw, is none."""
        asked = urllib.parse.urlencode({"query": expression})
        values = (float(each["value"][1]) for each in self._get(f"query?{asked}")["result"])
        return [value for value in values if value == value]  # noqa: PLR0124 (NaN is not equal to itself)

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        return {each["labels"]["alertname"] for each in self._get("alerts")["alerts"] if each["state"] == "firing"}

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=30) as answer:
            return json.load(answer)["data"]


def available() -> Availability:
    """Whether the server can be started here."""
    if not _program().is_file():
        return Availability("prometheus", why_not=f"no {_program()}")
    return Availability("prometheus", version=installed.pinned()["PROMETHEUS"])


def faster(text: str) -> str:
    """A file of rules with all its times divided by SCALE: durations, and what metrics in seconds are compared with."""
    rules = yaml.safe_load(text)
    for group in rules["groups"]:
        for rule in group["rules"]:
            in_seconds = _BARE_SECONDS.sub(lambda found: str(int(found[1]) / SCALE), rule["expr"])
            rule["expr"] = _DURATION.sub(_shorter, in_seconds)
            if "for" in rule:
                rule["for"] = _DURATION.sub(_shorter, rule["for"])
    return yaml.safe_dump(rules)


@contextlib.contextmanager
def start(folder: Path, rules: Path) -> Iterator[Prometheus]:
    """Run a server that evaluates the files of rules in a folder, SCALE times faster than they say."""
    folder.mkdir(exist_ok=True)
    for path in rules.glob("*.yaml"):
        (folder / f"{path.stem}.rules").write_text(faster(path.read_text()))
    targets, port = folder / "targets.json", free_port()
    targets.write_text("[]")
    configuration = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
        "rule_files": [f"{folder}/*.rules"],
        "scrape_configs": [
            {"job_name": "file", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command: list[str | Path] = [
        _program(),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with serving(Program("prometheus", command, folder / "prometheus.log"), lambda: accepts(port)):
        yield Prometheus(f"http://127.0.0.1:{port}", targets)


def _program() -> Path:
    return installed.cache_folder() / f"prometheus-{installed.pinned()['PROMETHEUS']}"


def _shorter(found: re.Match[str]) -> str:
    milliseconds = int(found[1]) * _SECONDS[found[2]] * 1000 // SCALE
    return f"{milliseconds}ms"
