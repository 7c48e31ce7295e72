from pathlib import Path

import pytest

from runtime import self_metrics
from runtime.self_metrics import memory_limit, process_metrics


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_limit_is_read_from_both_versions_of_control_groups(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, "536870912\n")

    assert memory_limit(tmp_path) == 512 << 20


@pytest.mark.parametrize(
    ("name", "text"), [("memory.max", "max\n"), ("memory/memory.limit_in_bytes", "9223372036854771712\n")]
)
def test_without_a_limit_there_is_none(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, name, text)

    assert memory_limit(tmp_path) is None


@pytest.mark.parametrize("limit", [None, 512 << 20])
def test_the_metric_has_a_value_only_with_a_limit(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    monkeypatch.setattr(self_metrics, "memory_limit", lambda: limit)

    metrics = process_metrics()

    assert metrics.registry.get_sample_value("waybill_memory_limit_bytes") == limit
