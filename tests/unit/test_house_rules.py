"""The rules of the house that no linter knows: import directions and the size of modules."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 300
MAY_IMPORT = {
    "config": set(),
    "runtime": {"config"},
    "pipeline": {
        "config.tables",
        "config.instant",
        "config.metrics",
        "config.labels",
        "config.errors",
        "runtime.database",
        "runtime.network",
        "runtime.retry",
    },
    "consumer": {"config", "runtime", "pipeline"},
    "notify": {"config", "runtime"},
    "embedded": {"config", "runtime.database"},
    "cli": {"config", "runtime", "pipeline", "consumer", "notify", "embedded"},
}
CHAIN = ("read", "query", "tables", "enrich", "sql", "spec", "request", "types")
"""The way to the rows in pipeline/: each folder or module may import those to its right."""

PIPELINE_MAY_IMPORT: dict[str, set[str]] = {
    **{name: set(CHAIN[place + 1 :]) for place, name in enumerate(CHAIN)},
    "request": set(),
    "read": {*CHAIN[1:], "batches", "interrupt", "progress"},
    "enrich": {"sql", "spec", "request", "types", "interrupt"},
    "spec": {"ignored_keys", "object_key", "request", "types"},
    "ignored_keys": {"request"},
    **{name: set() for name in ("batches", "buffer", "memory", "prefetch", "progress")},
    **{name: {"types"} for name in ("object_key", "storage")},
    "interrupt": {"progress"},
    "encode": {"buffer", "types"},
    "compress": {"buffer", "types"},
    "manifest": {"spec", "types"},
    "metering": {"buffer", "prefetch"},
    "export_file": {"buffer", "manifest", "object_key", "progress", "spec", "storage"},
    "export": {"read", "spec", "request", "types", "batches", "encode", "compress", "storage", "manifest", "metering"}
    | {"ignored_keys", "progress", "export_file"},
}
"""Whatever is not listed here is forbidden: `encode`, `storage`, `compress` and `manifest` are of `export` alone."""

LAYERS = ("unit", "contract", "golden", "e2e", "faults", "bench", "chart", "observability", "image", "compose", "pods")
MODULES = sorted(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))


def ours(path: Path) -> list[str]:
    """Every module of our own that the file imports, at any depth."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide directions"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] in {*MAY_IMPORT, "tests"}]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_their_directions(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    allowed = MAY_IMPORT[room] | {room}

    backwards = [name for name in ours(path) if not any(name == ok or name.startswith(f"{ok}.") for ok in allowed)]

    assert backwards == []


@pytest.mark.parametrize("layer", LAYERS)
def test_no_layer_of_the_tests_imports_another(layer: str) -> None:
    others = tuple(f"tests.{other}." for other in LAYERS if other != layer)
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "tests" / layer).rglob("*.py"))
        for name in ours(path)
        if name.startswith(others)
    }

    assert found == set()


@pytest.mark.parametrize("folder", ["support", "services", "containers", "oracle"])
def test_what_layers_of_the_tests_share_imports_none_of_them(folder: str) -> None:
    layers = tuple(f"tests.{layer}." for layer in LAYERS)
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "tests" / folder).rglob("*.py"))
        for name in ours(path)
        if name.startswith(layers)
    }

    assert found == set()


def imported(path: Path) -> set[str]:
    """The top-level packages that the file imports, at any depth."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", sorted((ROOT / "config").rglob("*.py")), ids=lambda path: path.name)
def test_config_only_declares_and_runs_nothing(path: Path) -> None:
    assert imported(path) & {"asyncio", "threading", "faust", "aiohttp", "aiokafka", "confluent_kafka"} == set()


PIPELINE = [path for path in MODULES if path.is_relative_to(ROOT / "pipeline")]


@pytest.mark.parametrize("path", PIPELINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_in_the_pipeline_keep_to_their_directions(path: Path) -> None:
    own = path.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py")
    if own == "__init__":
        assert [name for name in ours(path) if name.startswith("pipeline.")] == []
        return
    imported = {name.split(".")[1] for name in ours(path) if name.startswith("pipeline.")}

    assert imported - {own} <= PIPELINE_MAY_IMPORT[own]


def test_only_the_embedded_room_imports_embedded_engines() -> None:
    guilty = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if path.relative_to(ROOT).parts[0] != "embedded"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.split(".")[0] in {"chdb", "aiosmtpd"}
    ]

    assert guilty == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_begin_with_one_sentence(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))

    assert docstring is not None
    assert "\n\n" not in docstring


def test_the_pipeline_is_sync_but_for_the_calls_on_the_loop_that_s3fs_owns() -> None:
    guilty = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == "pipeline" and "async def" in path.read_text()
    ]

    assert guilty == ["pipeline/storage/s3_body.py", "pipeline/storage/s3_calls.py"]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-demo.lock", "requirements-image.lock"])
def test_every_lock_pins_all_dependencies_of_the_project(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {re.split(r"[\[<>=;]", each)[0] for each in project["dependencies"]}
    pinned = {line.partition("==")[0] for line in (ROOT / lock).read_text().splitlines() if "==" in line}

    assert required - pinned == set()
