"""Compiles statements once per shape: making and compiling one takes longer than many a small export's rows."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from sqlalchemy import Select

from pipeline.sql.compile import Absent, CompiledStatement, compile_statement

MOST_KEPT = 128
MOST_CHARACTERS = 64_000
"""A statement is kept if its text and its parameters have at most this many characters."""

Key: TypeAlias = tuple[Hashable, frozenset[tuple[str, frozenset[str]]]]


@dataclass(frozen=True)
class Statement:
    """A statement that is made only if it has to be compiled.

    Two statements of equal `shape` are the same except for `values`, which are those of `pipeline.sql.named_values`.
    """

    shape: Hashable
    values: Mapping[str, Any]
    make: Callable[[], Select[Any]]


@dataclass(frozen=True)
class CompiledStatements:
    """The statements that were compiled last, by shape; shared by all exports, from any thread."""

    _kept: OrderedDict[Key, CompiledStatement] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def compile(self, statement: Statement, absent: Absent) -> CompiledStatement:
        """Compile a statement, or return the kept one of its shape with the values of this one."""
        key = (statement.shape, frozenset(absent.items()))
        with self._lock:
            kept = self._kept.pop(key, None)
            if kept is not None:
                self._kept[key] = kept
        if kept is None:
            compiled = compile_statement(statement.make(), absent)
            if not _binds_elsewhere(compiled, statement.values):
                self._keep(key, compiled)
            return compiled
        own = {name: statement.values[name] for name in kept.parameters.keys() & statement.values.keys()}
        return replace(kept, parameters=kept.parameters | own)

    def _keep(self, key: Key, compiled: CompiledStatement) -> None:
        if len(compiled.sql) + len(str(compiled.parameters)) > MOST_CHARACTERS:
            return
        with self._lock:
            self._kept[key] = compiled
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)


def _binds_elsewhere(compiled: CompiledStatement, values: Mapping[str, Any]) -> bool:
    """Return whether a text among the values is also bound by another name, where it would not be replaced.

    No statement binds the project so. If one ever did, a kept one would read the rows of another project.
    """
    texts = {value for value in values.values() if isinstance(value, str)}
    return any(
        isinstance(value, str) and value in texts for name, value in compiled.parameters.items() if name not in values
    )
