"""Runs Compose against podman's socket, with the images of the tests under the names that docker-compose.yml has."""

import contextlib
import functools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.containers import images
from tests.containers.engine import EngineError, environment, podman, read_logs, run
from tests.containers.service_images import bridge, services
from tests.services.installed import cache_folder, pinned

FILE = images.ROOT / "docker-compose.yml"
OVERRIDE = Path(__file__).with_name("override.yml")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
STAND_INS = {each: each for each in ("kafka", "postgres", "clickhouse", "s3", "bucket", "mail", "prometheus")}
"""Targets of services/Containerfile by the service of docker-compose.yml that they stand in for."""


@dataclass(frozen=True)
class Compose:
    """A stack under a project name of its own: the files of Compose, what they say of services, and its variables."""

    project: str
    socket: Path
    files: Sequence[Path]
    services: Mapping[str, Mapping[str, Any]]
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, seconds: float = 600) -> str:
        """Run Compose, and return its output; EngineError if it fails."""
        options = [f"--file={path}" for path in self.files]
        command = ("--project-name", self.project, "--project-directory", str(images.ROOT), *options, *arguments)
        variables = {"DOCKER_HOST": f"unix://{self.socket}", **self.variables}
        assigned = [f"{name}={value}" for name, value in variables.items()]
        return run("env", *assigned, str(_program()), *command, seconds=seconds)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What podman says of each container, by service."""
        names = podman("ps", "--all", *self._mine(), "--quiet").split()
        found = json.loads(podman("inspect", *names)) if names else []
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def health(self) -> dict[str, str]:
        """The health of the services that have a check."""
        return {
            name: each["State"]["Health"]["Status"]
            for name, each in self.containers().items()
            if each["Config"].get("Healthcheck")
        }

    def logs(self, service: str) -> str:
        """What the container of a service has printed."""
        return read_logs(f"{self.project}-{service}-1")

    def left(self) -> list[str]:
        """The containers, volumes and networks that there are of this project."""
        return [
            f"{kind} {each}"
            for kind, every in (("container", ("--all",)), ("volume", ()), ("network", ()))
            for each in podman(kind, "ls", *every, *self._mine(), "--quiet").split()
        ]

    def check_health(self, service: str) -> None:
        """Run the health check of a service once, as a timer of systemd would."""
        # It fails if the service is unhealthy, which podman records, and if its container does not run.
        with contextlib.suppress(EngineError):
            podman("healthcheck", "run", f"{self.project}-{service}-1")

    def clean_up(self) -> None:
        """Let podman note which containers have ended; Compose does not know the state that they have until then."""
        if ended := podman("ps", "--all", *self._mine(), "--filter", "status=stopped", "--quiet").split():
            # It fails if Compose has removed one of them meanwhile.
            with contextlib.suppress(EngineError):
                podman("container", "cleanup", *ended)

    def _mine(self) -> tuple[str, str]:
        return "--filter", f"label=com.docker.compose.project={self.project}"


@contextlib.contextmanager
def start_compose(
    project: str,
    folder: Path,
    files: Sequence[Path] = (FILE, OVERRIDE),
    stand_ins: Mapping[str, str] = STAND_INS,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Compose]:
    """Make the images and serve podman's socket while the block runs; removes what is left of the project.

    `stand_ins` has a target of services/Containerfile for each service that is not Waybill's.
    """
    compose = Compose(project, folder / "podman.sock", files, _read_services(files), variables or {})
    own = {each.get("image") for each in compose.services.values()}
    made = {name: make() for name, make in {"waybill": images.waybill, "waybill-bridge": bridge}.items() if name in own}
    targets = services(*sorted(set(stand_ins.values())))
    for service, each in compose.services.items():
        if service in stand_ins:
            _tag(targets[stand_ins[service]], each["image"])
        elif each["image"] in made:
            _tag(made[each["image"]], each["image"])
    # The ports of the file are fixed.
    with images.lock("compose"), _serve(compose.socket), _timers(compose):
        try:
            yield compose
        finally:
            compose.run("--profile=*", "down", "--volumes", "--remove-orphans", "--timeout=10")


class _Loader(yaml.SafeLoader):
    """Reads the tags of Compose as null."""


_Loader.add_multi_constructor("!", lambda *_: None)


def _read_services(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The services of several files, of which later ones add keys and replace them."""
    found: dict[str, dict[str, Any]] = {}
    for path in files:
        for name, each in yaml.load(path.read_text(), Loader=_Loader)["services"].items():
            found[name] = found.get(name, {}) | each
    return found


def _tag(image: str, name: str) -> None:
    images.tag(image, f"docker.io/{name if '/' in name else f'library/{name}'}{'' if ':' in name else ':latest'}")


@contextlib.contextmanager
def _serve(socket: Path) -> Iterator[None]:
    command = ["podman", "system", "service", "--time=0", f"unix://{socket}"]
    server = subprocess.Popen(
        ["env", *(f"{name}={value}" for name, value in environment().items()), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise EngineError("podman does not serve its socket")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def _timers(compose: Compose) -> Iterator[None]:
    """Run the health checks at the intervals of the file, and note what has ended, while the block runs."""
    ended = threading.Event()

    def repeat(seconds: float, work: Callable[[], None]) -> None:
        while not ended.wait(seconds):
            work()

    checked = {
        name: each["healthcheck"]["interval"] for name, each in compose.services.items() if "healthcheck" in each
    }
    timers = [threading.Thread(target=repeat, args=(1.0, compose.clean_up))]
    for name, interval in checked.items():
        check = functools.partial(compose.check_health, name)
        timers.append(threading.Thread(target=repeat, args=(float(interval.removesuffix("s")), check)))
    for timer in timers:
        timer.start()
    try:
        yield
    finally:
        ended.set()
        for timer in timers:
            timer.join()


def _program() -> Path:
    return cache_folder() / f"compose-{pinned()['COMPOSE']}"
