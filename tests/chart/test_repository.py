"""The workflows, hooks and templates of the repository are valid."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.tools import ROOT, run, tool

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

    def run_step(tag: str) -> subprocess.CompletedProcess[bytes]:
        output = tmp_path / tag
        variables = {"GITHUB_REF_NAME": tag, "GITHUB_OUTPUT": str(output), "GITHUB_REPOSITORY_OWNER": "Someone"}
        command = ["bash", "-e", "-o", "pipefail", "-c", script]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False)

    assert run_step(f"v{version}").returncode == 0
    assert (tmp_path / f"v{version}").read_text() == f"version={version}\nowner=someone\n"
    assert run_step("v99.0.0").returncode != 0


def test_a_release_names_its_image_by_digest_and_where_the_chart_comes_from(tmp_path: Path) -> None:
    steps = read(".github/workflows/release.yml")["jobs"]["release"]["steps"]
    script = next(step["run"] for step in steps if step.get("id") == "chart")
    shutil.copytree(ROOT / "helm", tmp_path / "helm")
    digest = "sha256:" + "ab" * 32
    variables = {
        "GITHUB_SERVER_URL": "https://git.example.com",
        "GITHUB_REPOSITORY": "Someone/waybill",
        "GITHUB_REF_NAME": "v0.1.0",
        "REGISTRY": "registry.example.com",
        "IMAGE": "someone/waybill",
        "DIGEST": digest,
    }
    _run_step(script, tmp_path, variables)

    values, before = (yaml.safe_load((folder / "helm/values.yaml").read_text()) for folder in (tmp_path, ROOT))
    named = {"registry": "registry.example.com", "repository": "someone/waybill", "digest": digest}
    assert values == before | {"image": before["image"] | named}
    chart = yaml.safe_load((tmp_path / "helm/Chart.yaml").read_text())
    assert chart["sources"] == [chart["home"]] == ["https://git.example.com/Someone/waybill"]
    assert chart["icon"] == "https://git.example.com/Someone/waybill/raw/v0.1.0/helm/icon.svg"
    assert (ROOT / "helm/icon.svg").is_file()
    (image,) = yaml.safe_load(chart["annotations"]["artifacthub.io/images"])
    assert image == {"name": "waybill", "image": f"registry.example.com/someone/waybill@{digest}"}
    assert chart["annotations"]["artifacthub.io/license"] == "MIT"
    assert chart["maintainers"]
    run("helm", "lint", tmp_path / "helm", "--strict", "-f", "ci/minimal-values.yaml")
    image_of = run("helm", "template", tmp_path / "helm", "-f", "ci/minimal-values.yaml", "--kube-version", "1.37.0")
    assert f"registry.example.com/someone/waybill@{digest}" in image_of


def test_a_release_builds_on_the_base_image_by_digest(tmp_path: Path) -> None:
    steps = read(".github/workflows/release.yml")["jobs"]["release"]["steps"]
    script = next(step["run"] for step in steps if step.get("id") == "base")
    build = next(step for step in steps if step.get("id") == "image")
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$4" = python:3.11-slim-bookworm ] && echo \'"sha256:12"\'\n')
    docker.chmod(0o755)
    output = tmp_path / "output"
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_OUTPUT": str(output)}
    _run_step(script, ROOT, path)

    assert output.read_text() == "context=python:3.11-slim-bookworm=docker-image://python@sha256:12\n"
    assert build["with"]["build-contexts"] == "${{ steps.base.outputs.context }}"


def _run_step(script: str, folder: Path, variables: dict[str, str]) -> None:
    command = ["bash", "-euo", "pipefail", "-c", script]
    subprocess.run(command, cwd=folder, env={**os.environ, **variables}, check=True)


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
