"""Runs podman and buildah with images, networks and settings of their own, in the tests' cache."""

import functools
import hashlib
import os
import resource
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.services.installed import cache_folder, program

PROGRAMS = ("buildah", "podman", "runc", "conmon", "catatonit", "dnsmasq", "iptables")
LABEL = "io.waybill.tests"
"""The label of everything that a test run creates; its value names the run."""

# Each namespace and mount that a container needs, and a cgroup.
_TRIAL = """\
unshare --mount --net --pid --ipc --uts --fork --mount-proc true
cgroup="$(find /sys/fs/cgroup -maxdepth 1 -name memory -o -maxdepth 1 -name cgroup.procs | head -n 1)"
case "$cgroup" in */memory) ;; *) cgroup=/sys/fs/cgroup ;; esac
mkdir "$cgroup/waybill-trial-$$" && rmdir "$cgroup/waybill-trial-$$"
"""

# crun, Debian's default, does not start containers on every kernel that runc does. Health checks are run by the
# tests, because the timers that would run them belong to systemd. /dev/shm is empty after a restart of the machine,
# which is how podman notices it. The limits are those of this process, which it may not raise everywhere.
_CONTAINERS = """\
[containers]
default_ulimits = [{limits}]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
static_dir = "{folder}/libpod"
volume_path = "{folder}/volumes"
tmp_dir = "{run}/libpod"
[network]
network_backend = "cni"
network_config_dir = "{folder}/networks"
"""

_STORAGE = """\
[storage]
driver = "{driver}"
graphroot = "{folder}/storage"
runroot = "{run}/storage"
"""


class EngineError(RuntimeError):
    """A command of the engine failed; the message has what it printed."""


def forbidden() -> str | None:
    """Why this machine allows no containers, or None."""
    if os.geteuid() != 0:
        return "containers need root"
    tried = subprocess.run(["sh", "-ec", _TRIAL], capture_output=True, text=True, check=False)
    return f"containers are not allowed here: {tried.stderr.strip()}" if tried.returncode else None


def missing() -> str | None:
    """Which program is not installed, or None."""
    absent = [name for name in PROGRAMS if program(name) is None]
    return f"tests/services/install.sh has yet to install {', '.join(absent)}" if absent else None


def podman(*arguments: str | Path, stdin: str = "", seconds: float = 300) -> str:
    """Run podman, and return its output; EngineError if it fails."""
    return run("podman", *arguments, stdin=stdin, seconds=seconds)


def read_logs(container: str) -> str:
    """What a container has printed so far, on both streams."""
    return run("sh", "-c", 'podman logs "$1" 2>&1', "sh", container)


def run(name: str, *arguments: str | Path, stdin: str = "", seconds: float = 300) -> str:
    """Run a program with the engine's settings, and return its output; EngineError if it fails."""
    ran = subprocess.run(
        [name, *arguments],
        env={**os.environ, **environment()},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if ran.returncode:
        shown = " ".join(map(str, (name, *arguments)))
        raise EngineError(f"{shown} ended with status {ran.returncode}:\n{ran.stdout[-2000:]}{ran.stderr[-4000:]}")
    return ran.stdout


@functools.cache
def environment() -> Mapping[str, str]:
    """The variables that make podman and buildah use the settings of the tests."""
    folder = cache_folder() / "containers"
    running = Path("/dev/shm") / f"waybill-containers-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    for path in (folder / "networks", running):
        path.mkdir(parents=True, exist_ok=True)
    containers, storage = folder / "containers.conf", folder / "storage.conf"
    containers.write_text(_CONTAINERS.format(folder=folder, run=running, limits=_limits()))
    storage.write_text(_STORAGE.format(driver=_driver(folder), folder=folder, run=running))
    return {
        "CONTAINERS_CONF": str(containers),
        "CONTAINERS_STORAGE_CONF": str(storage),
        "BUILDAH_ISOLATION": "chroot",
        "DISABLE_HC_SYSTEMD": "true",
    }


def remove_all(owner: str) -> None:
    """Remove the pods, containers, volumes and networks that carry this value of LABEL."""
    selected = ("--filter", f"label={LABEL}={owner}")
    for kind, remove in (
        ("pod", ("pod", "rm", "--force", "--time", "0")),
        ("container", ("container", "rm", "--force", "--volumes", "--time", "0")),
        ("volume", ("volume", "rm", "--force")),
        ("network", ("network", "rm", "--force")),
    ):
        every = ("--all",) if kind == "container" else ()
        if names := podman(kind, "ls", *every, *selected, "--quiet").split():
            podman(*remove, *names)


def _limits() -> str:
    files, processes = (resource.getrlimit(number)[1] for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    return f'"nofile={files}:{files}", "nproc={min(processes, 32768)}:{min(processes, 32768)}"'


def _driver(folder: Path) -> str:
    """Overlay where the file system can have it: vfs copies every layer."""
    trial = folder / f"trial-{os.getpid()}"
    parts = [trial / name for name in ("lower", "upper", "work", "merged")]
    for path in parts:
        path.mkdir(parents=True)
    options = "lowerdir={},upperdir={},workdir={}".format(*parts)
    script = 'mount -t overlay overlay -o "$1" "$2" && umount "$2"'
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", options, str(parts[-1])]
    mounted = subprocess.run(command, capture_output=True, check=False)
    subprocess.run(["rm", "-rf", trial], check=True)
    return "vfs" if mounted.returncode else "overlay"
