"""Runs containers, each labelled with the test run that owns it."""

import contextlib
import itertools
import json
import os
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.containers.engine import LABEL, EngineError, podman, read_logs, remove_all

VALUES: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "helm/values.yaml").read_text())
CONFINED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp:size=256m,mode=1777",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
)
"""The options that give a container what the chart's security context and its volume give it."""


@dataclass(frozen=True)
class Container:
    """A started container."""

    name: str

    def execute(self, *command: str, options: Sequence[str] = ()) -> str:
        """Run a command in it, and return its output; EngineError if it fails."""
        return podman("exec", *options, self.name, *command)

    def inspect(self, template: str) -> str:
        """A value of its state, by a Go template."""
        return podman("inspect", "--format", template, self.name).strip()

    def running(self) -> bool:
        """Whether its process runs."""
        return self.inspect("{{.State.Running}}") == "true"

    def logs(self) -> str:
        """What it has printed so far."""
        return read_logs(self.name)

    def stop(self, seconds: int) -> int:
        """Send it SIGTERM, and SIGKILL after some seconds; returns its exit status."""
        podman("stop", "--time", str(seconds), self.name, seconds=seconds + 60)
        return int(self.inspect("{{.State.ExitCode}}"))

    def memory(self) -> int:
        """The resident bytes of its first process."""
        status = dict(line.split(":", 1) for line in self.execute("cat", "/proc/1/status").splitlines())
        return int(status["VmRSS"].split()[0]) * 1024

    def working_set(self) -> int:
        """The bytes that count against its limit, without files that can be dropped, as Kubernetes reports them."""
        values = dict(line.split() for line in self._cgroup("memory/memory.stat", "memory.stat").splitlines())
        inactive = values.get("total_inactive_file") or values["inactive_file"]
        return int(self._cgroup("memory/memory.usage_in_bytes", "memory.current")) - int(inactive)

    def memory_limit(self) -> int:
        """The bytes that the kernel lets it have."""
        return int(self._cgroup("memory/memory.limit_in_bytes", "memory.max"))

    def _cgroup(self, *names: str) -> str:
        """The first file of its cgroup that there is: the versions of cgroups have different ones."""
        script = 'cd /sys/fs/cgroup; for name; do [ ! -e "$name" ] || { cat "$name"; break; }; done'
        return self.execute("sh", "-c", script, "sh", *names)


@dataclass(frozen=True)
class Containers:
    """The containers of one test run; `owner` is the value of their label."""

    owner: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def options(self) -> tuple[str, str]:
        """The options that label what podman creates."""
        return "--label", f"{LABEL}={self.owner}"

    def new_name(self, name: str) -> str:
        """A name that no other container has."""
        return f"{name}-{self.owner}-{next(self._numbers)}"

    def run(self, image: str, *command: str, options: Sequence[str] = ()) -> str:
        """Run a command in a container of its own, and return its output; EngineError if it fails."""
        return podman("run", "--rm", *self.options, *options, image, *command)

    def start(self, name: str, image: str, *command: str, options: Sequence[str] = ()) -> Container:
        """Start a container in the background."""
        name = self.new_name(name)
        podman("run", "--detach", "--name", name, *self.options, *options, image, *command)
        return Container(name)


@contextlib.contextmanager
def start_session() -> Iterator[Containers]:
    """Give a test run its containers, and remove those that are left; also those of runs that were killed."""
    owners = {json.loads(each)[LABEL] for each in _labels()}
    for owner in owners:
        if not _alive(owner):
            remove_all(owner)
    owner = f"{os.getpid()}-{uuid.uuid4().hex[:6]}"
    try:
        yield Containers(owner)
    finally:
        remove_all(owner)


def environment_options(environment: Mapping[str, str]) -> list[str]:
    """The options that set variables in a container."""
    return [f"--env={name}={value}" for name, value in environment.items()]


def check_confinement(container: Container, memory: str) -> None:
    """Check from inside that a container has the rights and the memory that the chart gives, such as `256Mi`."""
    status = dict(line.split(":", 1) for line in container.execute("cat", "/proc/1/status").splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"].strip() == "1"
    assert container.memory_limit() == int(memory.removesuffix("Mi")) * 2**20
    for path in ("/opt/waybill/file", "/var/lib/waybill/file", "/file"):
        try:
            container.execute("touch", path)
        except EngineError as error:
            assert "Read-only file system" in str(error)  # noqa: PT017 (there are three attempts)
        else:
            raise AssertionError(f"{path} could be written")
    container.execute("touch", "/tmp/file")


def answers(url: str) -> bool:
    """Whether a GET is answered with status 200."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _labels() -> list[str]:
    try:
        listed = podman("ps", "--all", "--filter", f"label={LABEL}", "--format", "{{json .Labels}}")
    except EngineError:
        return []
    return listed.splitlines()


def _alive(owner: str) -> bool:
    return Path("/proc", owner.partition("-")[0]).exists()
