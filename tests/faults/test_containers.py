"""Faults that only containers have: the kernel kills, pauses and cuts them off, and their images are replaced."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.containers import images
from tests.containers.containers import CONFINED, Container, Containers
from tests.containers.engine import EngineError, environment, podman
from tests.containers.networks import create_network
from tests.faults.case import Case, run_case
from tests.faults.checkpoints import stop_while_reading
from tests.faults.source import LARGE, SMALL
from tests.faults.system import LEASE, System
from tests.support.daemons import Daemon, eventually

pytestmark = pytest.mark.faults
DAEMONS = (System.sweeping_consumer, System.notifier)
SETTINGS = ("WAYBILL_*", "LANGFUSE_*", "BATCH_*", "KAFKA_*", "CLICKHOUSE_*", "DATABASE_*", "SMTP_*", "EMAIL_*")
LIMIT_MIB = 512
GAP_SECONDS = 5.0
"""Between two requests during a replacement."""


@dataclass(frozen=True)
class _Pod:
    """A daemon in a container."""

    daemon: Daemon
    container: Container

    def end(self) -> int:
        """Wait until the container has ended, and return its exit status."""
        return self.daemon.process.wait(timeout=90)


def _start(system: System, name: str, image: str, *options: str, **changes: str) -> _Pod:
    """Start a daemon in a container that has the rights of the chart's, in the network of the machine unless told."""
    containers = system.containers
    assert containers is not None
    container = Container(containers.new_name(name))
    replaced = tuple(kind for kind in ("--network=", "--tmpfs=/tmp:") if any(each.startswith(kind) for each in options))
    defaults = [each for each in ("--network=host", *CONFINED) if not each.startswith(replaced)]
    variables = [f"--env={each}" for each in SETTINGS]
    fixed = [*containers.options, f"--name={container.name}", f"--hostname={container.name}", *defaults]
    settings = [f"{variable}={value}" for variable, value in environment().items()]
    # A container's monitor notes in this folder that the kernel has killed it for its memory.
    folder = system.folder / container.name
    folder.mkdir()
    launcher = ["env", f"--chdir={folder}", *settings, "podman", "run", *fixed, *variables, *options, image, name]
    return _Pod(system.start(name, changes, launcher), container)


def _isolated(system: System, *options: str, **changes: str) -> _Pod:
    """Start a consumer in a consumer group of its own: after its end no session timeout delays the next one."""
    return _start(system, "consumer", images.waybill(), *options, WAYBILL_CONSUMER_GROUP=_group(), **changes)


def _group() -> str:
    return f"isolated-{time.monotonic_ns()}"


def _kill_for_memory(system: System) -> None:
    """Fill a volume in memory until the kernel kills the largest process of the container."""
    lost = _lost(system)
    pod = _isolated(system, f"--memory={LIMIT_MIB}m", "--tmpfs=/memory:size=2g,mode=1777")
    export_id, barrier = stop_while_reading(system)
    with suppress(EngineError):
        pod.container.execute("dd", "if=/dev/zero", "of=/memory/file", "bs=1M", f"count={2 * LIMIT_MIB}")
    assert pod.end() == 128 + 9
    assert (system.folder / pod.container.name / "oom").exists()
    barrier.drop()
    system.wait_for(export_id, "COMPLETED")
    # The alert for silent kills counts these.
    eventually(lambda: _lost(system) == lost + 1, what="the attempt is counted as lost")


def _lost(system: System) -> float:
    consumers = system.alive("consumer")
    return sum(each.metric("waybill_attempts_failed_total", reason="lost") for each in consumers)


def _pause(system: System) -> None:
    pod = _isolated(system)
    export_id, barrier = stop_while_reading(system)
    podman("pause", pod.container.name)
    try:
        system.wait_for(export_id, "COMPLETED")
        system.pause(0, LEASE)
    finally:
        podman("unpause", pod.container.name)
    barrier.release()
    eventually(lambda: pod.daemon.metric("waybill_exports_running") == 0, what="the paused consumer gives up")


def _cut_network(system: System) -> None:
    with create_network() as network, _gone_after(system):
        pod = _isolated(system, network.option, WAYBILL_HTTP_HOST=network.address)
        export_id, barrier = stop_while_reading(system)
        network.cut()
        barrier.release()
        system.wait_for(export_id, "COMPLETED")
        system.pause(0, LEASE)
        network.restore()
        eventually(lambda: _answers(pod.daemon), what="the consumer is ready again")
        eventually(lambda: pod.daemon.metric("waybill_exports_running") == 0, what="it has given up the export")
        system.wait_for(system.request(), "COMPLETED")


def _answers(daemon: Daemon) -> bool:
    try:
        return daemon.ready()
    except OSError:
        return False


@contextmanager
def _gone_after(system: System) -> Iterator[None]:
    """Stop the daemons that the block has started: their network goes with it."""
    before = list(system.daemons)
    try:
        yield
    finally:
        for each in system.daemons:
            if each not in before:
                each.process.terminate()
                each.process.wait(timeout=90)


def _fill_volume(system: System) -> None:
    pods = [
        _isolated(system, "--tmpfs=/tmp:size=4m,mode=1777"),
        _start(system, "notify", images.waybill(), "--tmpfs=/tmp:size=4m,mode=1777"),
    ]
    exports = [system.request(system.random.choice((LARGE, SMALL)), name) for name in ("CSV", "PARQUET")]
    for pod in pods:
        with pytest.raises(EngineError, match="No space left on device"):
            pod.container.execute("dd", "if=/dev/zero", "of=/tmp/file", "bs=1M")
    exports += [system.request(system.random.choice((LARGE, SMALL)), name) for name in ("JSONL", "CSV", "PARQUET")]
    for each in exports:
        system.wait_for(each, "COMPLETED")
        eventually(lambda each=each: system.emails(each), what="the email is sent")  # type: ignore[misc]
    for pod in pods:
        pod.daemon.process.terminate()
        assert pod.end() == 0


def _replace_images(system: System) -> None:
    old, new = images.waybill(), _next_version(system.folder)
    group = _group()
    names = ("consumer", "consumer", "notify")
    pods = [_start(system, name, old, WAYBILL_CONSUMER_GROUP=group) for name in names]
    with _load(system), ExitStack() as leaving:
        for name, pod in zip(names, pods, strict=True):
            started = _start(system, name, new, WAYBILL_CONSUMER_GROUP=group)
            assert started.container.inspect("{{.ImageName}}") == new
            pod.daemon.process.terminate()
            leaving.callback(pod.end)
            system.pause(0, 2)
        leaving.close()
    assert [pod.end() for pod in pods] == [0, 0, 0]


@contextmanager
def _load(system: System) -> Iterator[None]:
    """Request exports while the block runs."""
    ending = threading.Event()

    def request() -> None:
        while not ending.wait(GAP_SECONDS):
            system.request(LARGE)

    thread = threading.Thread(target=request)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _next_version(folder: Path) -> str:
    """Build the image of the next version: this checkout with another number."""
    root = folder / "next"
    if not root.exists():
        for file in images.waybill_files(images.ROOT):
            copy = root / file.relative_to(images.ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy)
        project = root / "pyproject.toml"
        project.write_text(project.read_text().replace('version = "', 'version = "9.', 1))
    return images.waybill(root)


CASES = (
    Case("a consumer killed by the kernel for its memory in the middle of an export", _kill_for_memory),
    Case("a container paused for longer than the lease", _pause),
    Case("the network of one container cut and restored", _cut_network),
    Case("a full temporary volume", _fill_volume),
    Case("images replaced one by one with exports running", _replace_images),
)
OFTEN: tuple[str, ...] = ()


@pytest.fixture(autouse=True)
def _engine(containers: Containers, system: System) -> None:
    images.waybill()
    system.containers = containers


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
