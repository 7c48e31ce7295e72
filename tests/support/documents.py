"""Finds the documents, and what they link to, name and tell people to run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("", "docs", "helm", "helm/runbooks", ".github", ".github/ISSUE_TEMPLATE")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name_of(path: Path) -> str:
    """The path from the root, which names the test of a document."""
    return str(path.relative_to(ROOT))


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return _FENCED.sub("", text)


def links(text: str) -> list[str]:
    """The targets of all links."""
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings."""
    titles = (re.sub(r"[^\w\- ]", "", title.lower()) for title in _HEADING.findall(prose(text)))
    return {title.strip().replace(" ", "-") for title in titles}


def code(text: str) -> list[str]:
    """Everything that is set as code, inline: names, paths and commands."""
    return _INLINE.findall(prose(text))


def commands(text: str) -> Iterator[list[str]]:
    """Every command, split into words: the lines of blocks without a language, and what is set as code inline."""
    blocks = [block for _, language, block in _FENCED.findall(text) if language in {"", "sh"}]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in (*lines, *code(text)):
        for command in re.split(r" && | \| |; ", line):
            if words := _words(command.strip().removeprefix("$ ")):
                yield words


def tables(text: str) -> Iterator[list[str]]:
    """The rows of all tables, as their cells."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # it is no command
        return []
