"""Texts are plain English: none has a phrase that readers were seen to stumble over."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, ROOT, name_of
from tests.support.prose import comments_of, lines_of, strings_of

PHRASES = re.compile(
    r"""
    \banew\b | \bin\svain\b | \bof\sours\b | \bwithout\sa\sword\b | \b[Ww]hoever\b | \b[Ww]homever\b
    | \b(?<![-/@.`])(?<!channel=")(?<!channel:\s")[Mm]ail(?:s|ed|ing)?\b(?![-/.:`=]|\s(?:server|sink))  # email
    | \bis\saway\b | \bare\saway\b | \bstays?\saway\b     # unavailable
    | \b[Aa]t\sonce\b                                     # immediately, at the same time
    | \bso\smany\b | \bso\slong\b                         # a limit, a number
    | \b[Tt]he\sapplication's\b | \bof\sthe\sapplication\b  # Langfuse's
    | \bf[ae]lls?\ssilent\b | \bby\snow\b | \b[Rr]ang\sfor\b | \b[Rr]ings?\sfor\b | \bnobody\srang\b
    | \bput\s(?:aside|off|by)\b
    | \b(?:is|are|be)\stold\b(?!\sto) | \btells?\sof\b | \bbur(?:y|ies|ied)\b | (?<![Dd]ead[ -])(?<!ASCII\s)\bletters?\b
    | \bdesk\b | \breception\b | \brhythm\b | \bleftovers?\b | (?<!door)\bbells?\b
    | \bbe\shad\b | \bcome\sto\san\send\b | \bmend(?:s|ed)?\b | \bnext\sto\snothing\b
    """,
    re.VERBOSE,
)
PACKAGES = ("config", "runtime", "pipeline", "consumer", "notify", "embedded", "cli", "deploy")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
GLOBS = (
    "Makefile",
    "*.yml",
    ".github/**/*.yml",
    "docs/*.yaml",
    "helm/**/*.yaml",
    "helm/**/*.tpl",
    "helm/**/*.txt",
    "consumer/**/*.html",
    "notify/**/*.html",
    "notify/**/*.txt",
    "tests/**/*.sh",
)
FILES = sorted({*DOCUMENTS, *(path for pattern in GLOBS for path in ROOT.glob(pattern))})
DASHBOARDS = sorted(ROOT.glob("helm/dashboards/*.json"))
Read = Callable[[Path], Iterator[tuple[int, str]]]


def panels_of(path: Path) -> Iterator[tuple[int, str]]:
    """The titles and descriptions of a dashboard and its panels, by the panel's place."""
    dashboard = json.loads(path.read_text())
    for place, each in enumerate((dashboard, *dashboard["panels"])):
        yield from ((place, each[name]) for name in ("title", "description") if name in each)


def phrases(path: Path, read: Read) -> list[str]:
    """What a file says that it should not, with the place of each."""
    return [f"{place}: …{found[0]}… in {text!r}" for place, text in read(path) for found in PHRASES.finditer(text)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_logs_errors_help_and_pages_are_plain(path: Path) -> None:
    assert phrases(path, strings_of) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_docstrings_and_comments_are_plain(path: Path) -> None:
    assert phrases(path, comments_of) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_documents_charts_and_templates_are_plain(path: Path) -> None:
    assert phrases(path, lines_of) == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=name_of)
def test_dashboards_are_plain(path: Path) -> None:
    assert phrases(path, panels_of) == []
