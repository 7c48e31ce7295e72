"""Every link, command, path and name in the documents works."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from cli.main import app
from config.settings import Settings
from tests.support.documents import DOCUMENTS, ROOT, anchors, code, commands, links, name_of

SETTINGS = {str(field.alias) for field in Settings.model_fields.values()}
SETTING = re.compile(r"\b(?:WAYBILL|LANGFUSE_S3|BATCH_EXPORT|CLICKHOUSE|KAFKA|SMTP|EMAIL)_[A-Z0-9_]*[A-Z0-9]\b")
OF_TESTS = {
    "WAYBILL_TEST_REAL",
    "WAYBILL_TEST_CACHE",
    "WAYBILL_TEST_POSTGRES",
    "WAYBILL_TEST_PATIENCE",
    "WAYBILL_OBSERVE",
    "WAYBILL_OLD_CHECKOUT",
}
OF_OVERLAY = set(re.findall(r"\$\{(WAYBILL_\w+)", (ROOT / "deploy/langfuse.override.yml").read_text()))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FOLDERS = ("config", "runtime", "pipeline", "consumer", "notify", "embedded", "cli", "tests", "helm", "docs", "deploy")
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


def waybill(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words after `waybill` name, and the words that are left for it."""
    group: Any = get_command(app)
    rest = words
    with click.Context(group, info_name="waybill") as context:
        found = group
        while hasattr(found, "resolve_command") and rest and not rest[0].startswith(("-", "…")):
            _, found, rest = found.resolve_command(context, rest)
    return found, rest


def invocations(path: Path) -> list[list[str]]:
    """The words after `waybill` of every command of a document, also behind `kubectl exec` and the like."""
    found = []
    for words in commands(path.read_text()):
        program = [Path(word).name for word in words].index("waybill") if is_command(words) else None
        if program is not None:
            found.append(words[program + 1 :])
    return found


def is_command(words: list[str]) -> bool:
    """Whether the words run the command `waybill`: as it is, in a virtual environment, or in a pod."""
    return Path(words[0]).name == "waybill" or ("--" in words and words[words.index("--") + 1 :][:1] == ["waybill"])


@each_document
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    broken = []
    for link in links(path.read_text()):
        target, _, anchor = link.partition("#")
        if target.startswith(("https://", "http://")):
            continue
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(link)

    assert broken == []


@each_document
def test_every_make_target_exists(path: Path) -> None:
    named = {
        word
        for words in commands(path.read_text())
        if (run := [word for word in words if "=" not in word])[:1] == ["make"]
        for word in run[1:2]
    }

    assert named - TARGETS == set()


@each_document
def test_every_waybill_command_has_the_options_and_values_that_are_written(path: Path) -> None:
    for words in invocations(path):
        command, rest = waybill(words)
        given = [word.partition("=")[0] for word in rest if word.startswith("--")]

        assert set(given) <= {"--help", *(name for each in command.params for name in each.opts)}, shlex.join(words)


@each_document
def test_every_setting_exists(path: Path) -> None:
    assert set(SETTING.findall(path.read_text())) - SETTINGS - OF_TESTS - OF_OVERLAY == set()


@each_document
def test_every_path_of_the_repository_exists(path: Path) -> None:
    named = [text for text in code(path.read_text()) if re.fullmatch(r"[\w./*-]+", text)]
    paths = [text.rstrip("/") for text in named if text.startswith(tuple(f"{folder}/" for folder in FOLDERS))]

    assert [each for each in paths if not list(ROOT.glob(each))] == []


def test_the_operations_page_names_every_command() -> None:
    group = get_command(app)
    named = {words[0] for words in invocations(ROOT / "docs/operate.md") if words}

    assert set(group.commands) - named == set()  # type: ignore[attr-defined] # it is a group
