import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.imports import collecting_nothing
from cli.main import Command


@pytest.fixture(autouse=True)
def _unfreeze() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_a_command_is_imported_without_garbage_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_once.py").write_text("import gc\nenabled = gc.isenabled()\ndef run() -> None: ...\n")
    monkeypatch.syspath_prepend(tmp_path)

    Command("imported_once:run", "").load("run")

    assert not sys.modules.pop("imported_once").enabled
    assert gc.isenabled()


def test_objects_of_imported_modules_are_not_collected_later() -> None:
    with collecting_nothing():
        imported: list[list[int]] = [[] for _ in range(1_000)]

    assert gc.get_freeze_count() > len(imported)
    assert not any(each is imported for each in gc.get_objects())


def test_garbage_is_collected_again_after_an_import_that_fails() -> None:
    with pytest.raises(ModuleNotFoundError), collecting_nothing():
        raise ModuleNotFoundError

    assert gc.isenabled()
