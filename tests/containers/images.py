"""Makes the Dockerfile's base from Debian's packages, and builds Waybill's image on it; once for each content."""

import contextlib
import fcntl
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.containers.engine import EngineError, podman, run
from tests.services.installed import cache_folder

ROOT = Path(__file__).parents[2]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates"
KEPT = 3
"""Images of a repository that are kept; each checkout of a machine has its own."""

AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

# In memory, because debootstrap flushes every file to the disk. The Python of the real base lets pip install packages.
_ROOT_SCRIPT = """\
packages=$1 suite=$2 mirror=$3 archive=$4 root=/mnt
mount -t tmpfs tmpfs "$root"
debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror"
rm -rf "$root"/usr/lib/python3*/EXTERNALLY-MANAGED "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
tar --create --file "$archive" --directory "$root" .
"""

_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")


def waybill(root: Path = ROOT) -> str:
    """The name of Waybill's image of a checkout, built with its Dockerfile if it is not there."""
    with lock():
        base = make_base()
        name = f"localhost/waybill-tests/waybill:{digest(base, *contents(root, waybill_files(root)))}"
        if not exists(name):
            build(name, root / "Dockerfile", root)
        return name


def tag(image: str, name: str) -> None:
    """Give an image another name, as if it had been pulled by that name."""
    podman("tag", image, name)


def make_base() -> str:
    """Make the image that the Dockerfile begins with, from Debian's packages, and tag it with the Dockerfile's name."""
    (name,) = set(re.findall(r"^FROM (\S+:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    made = f"localhost/waybill-tests/base:{digest(name, PACKAGES)}"
    if not exists(made):
        archive = cache_folder() / f"base-{digest(name, PACKAGES)}.tar"
        if not archive.exists():
            _make_root(archive, suite=name.rpartition("-")[2])
        podman("import", "--change", f"ENV PATH={PATH}", archive, made)
    tag(made, f"docker.io/library/{name}")
    return made


def _make_root(archive: Path, suite: str) -> None:
    unfinished = archive.with_suffix(".unfinished")
    command = ["unshare", "--mount", "sh", "-ec", _ROOT_SCRIPT, "sh", PACKAGES, suite, _mirror(suite), str(unfinished)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    unfinished.rename(archive)


def _mirror(suite: str) -> str:
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(line.split()[0] for line in lines if line.endswith(f" {suite}"))


def build(name: str, file: Path, context: Path, *options: str) -> None:
    """Build an image; the machine's way to its package indexes is mounted, and no part of the image."""
    with tempfile.TemporaryDirectory() as folder:
        mounts = []
        texts = {"/etc/pip.conf": _pip_configuration(), "/usr/local/etc/npmrc": _npm_configuration()}
        for place, text in texts.items():
            file_here = Path(folder) / Path(place).name
            file_here.write_text(text)
            mounts.append(f"--volume={file_here}:{place}:ro")
        if Path(AUTHORITIES).exists():
            mounts.append(f"--volume={AUTHORITIES}:{AUTHORITIES}:ro")
        fixed = ("bud", "--layers", "--pull-never", f"--file={file}", f"--tag={name}")
        run("buildah", *fixed, *mounts, *options, str(context), seconds=1800)
    _remove_older(name.partition(":")[0])


def _remove_older(repository: str) -> None:
    """Keep the last images of a repository; one that a container uses stays."""
    listed = podman("images", "--sort", "created", "--format", "{{.Repository}}:{{.Tag}}", repository).split()
    for old in listed[KEPT:]:
        with contextlib.suppress(EngineError):
            podman("rmi", old)


def _pip_configuration() -> str:
    """The options of this machine's pip that say where packages are; values are its own notation."""
    listed = subprocess.run(
        ["python3", "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    found = dict(re.findall(r"^(?:global|:env:)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE))
    lines = [f"{option} = {found[option]}" for option in _PIP_OPTIONS if option in found]
    return "\n".join(["[global]", *lines, f"cert = {AUTHORITIES}", ""])


def _npm_configuration() -> str:
    """The registry of this machine's npm."""
    registry = subprocess.run(["npm", "config", "get", "registry"], check=True, capture_output=True, text=True).stdout
    authorities = [f"cafile={AUTHORITIES}"] if Path(AUTHORITIES).exists() else []
    return "\n".join([f"registry={registry.strip()}", *authorities, ""])


def waybill_files(root: Path) -> list[Path]:
    """The files that the Dockerfile of a checkout copies, as .dockerignore lists them, and the Dockerfile."""
    kept = [line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    paths = [root / name for name in ("Dockerfile", ".dockerignore", *kept)]
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return [file for file in files if "__pycache__" not in file.parts]


def contents(root: Path, files: Iterable[Path]) -> Iterator[str]:
    """The names, digests and rights to execute of files below a folder."""
    for file in sorted(files):
        yield f"{file.relative_to(root)}:{hashlib.sha256(file.read_bytes()).hexdigest()}:{file.stat().st_mode & 0o111}"


def digest(*parts: str) -> str:
    """A short digest of several texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def exists(name: str) -> bool:
    """Whether there is an image of this name."""
    try:
        podman("image", "exists", name)
    except EngineError:
        return False
    return True


@contextlib.contextmanager
def lock(name: str = "images") -> Iterator[None]:
    """Let one process of the machine at a time make images, or do what has this name."""
    with (cache_folder() / f"{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
