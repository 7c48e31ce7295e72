"""The workflows, hooks and templates of the repository are valid."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.tools import ROOT, tool

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PACKAGES = ("config", "runtime", "pipeline", "consumer", "notify", "embedded", "cli")


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actionlint_finds_nothing_in_a_workflow(path: Path) -> None:
    ran = subprocess.run([tool("actionlint"), "-color=false", path], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stdout) == (0, "")


def test_ci_runs_what_contributors_can_run() -> None:
    steps = read(".github/workflows/ci.yml")["jobs"]["ci"]["steps"]

    assert [step["run"] for step in steps if "run" in step and "name" not in step] == ["make ci"]


def test_a_release_compares_the_tag_with_every_version_there_is(tmp_path: Path) -> None:
    steps = read(".github/workflows/release.yml")["jobs"]["release"]["steps"]
    script = next(step["run"] for step in steps if step.get("id") == "names")
    version = read("helm/Chart.yaml")["version"]

    def run(tag: str) -> subprocess.CompletedProcess[bytes]:
        output = tmp_path / tag
        variables = {"GITHUB_REF_NAME": tag, "GITHUB_OUTPUT": str(output), "GITHUB_REPOSITORY_OWNER": "Someone"}
        command = ["bash", "-e", "-o", "pipefail", "-c", script]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False)

    assert run(f"v{version}").returncode == 0
    assert (tmp_path / f"v{version}").read_text() == f"version={version}\nowner=someone\n"
    assert run("v99.0.0").returncode != 0


def test_the_hooks_are_the_tools_of_make_check() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    hooks = {" ".join(hook["entry"].replace("--force-exclude", "").split()) for hook in repository["hooks"]}
    recipe = (ROOT / "Makefile").read_text().partition("\ncheck: install")[2].partition("\n\n")[0]

    checks = {line.strip().removesuffix(" .") for line in recipe.replace("@$(BIN)", ".venv/bin").splitlines()[1:]}

    assert hooks == {" ".join(sorted_options(check)) for check in checks}


def sorted_options(command: str) -> list[str]:
    """The words of a command, its program and subcommand first."""
    words = command.replace(" .", "").split()
    return [*(word for word in words if not word.startswith("-")), *(word for word in words if word.startswith("-"))]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_has_types(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
