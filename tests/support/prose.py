"""Finds the prose in source files: what people read, with the line that it is on."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path


def strings_of(path: Path) -> Iterator[tuple[int, str]]:
    """The texts in a module, without docstrings and without names: what logs, errors, help and pages say."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in docstrings:
            continue
        if isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value


def comments_of(path: Path) -> Iterator[tuple[int, str]]:
    """The docstrings and comments of a module."""
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every line of a text file."""
    yield from enumerate(path.read_text().splitlines(), 1)
