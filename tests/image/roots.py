"""Makes a clean Debian root, and runs the stages of the Dockerfile in copies of it."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tests.image.dockerfile import Context, Instruction, Stage, read

REPOSITORY = Path(__file__).parents[2]
IMAGE = "python:3.11-slim-bookworm"
PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ALSO_FROM_HERE = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
"""The files with which a container engine gives its containers a network."""

# In a separate mount namespace, /proc disappears with the command.
_ENTER = 'root=$1 user=$2; shift 2; mount -t proc proc "$root/proc"; exec chroot --userspec="$user" "$root" "$@"'


def debian(folder: Path) -> Path:
    """A root of Debian bookworm with the image's Python, made once and kept."""
    root = folder / "debian-bookworm"
    if not root.is_dir():
        making = folder / "debian-bookworm.making"
        shutil.rmtree(making, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(making), _mirror()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        # The Python of the image lets pip install packages into it.
        next(making.glob("usr/lib/python3*/EXTERNALLY-MANAGED")).unlink()
        for downloaded in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(making / downloaded)
        for name in ALSO_FROM_HERE:
            if Path(name).is_file():
                shutil.copyfile(name, making / name.lstrip("/"))
        making.rename(root)
    return root


def build(base: Path, folder: Path) -> tuple[Path, Context]:
    """Run the Dockerfile; returns the root and the context of its last stage."""
    done: dict[str, tuple[Path, Context]] = {IMAGE: (base, Context({"PATH": PATH}))}
    stages = read((REPOSITORY / "Dockerfile").read_text())
    for stage in stages:
        done[stage.name] = _follow(stage, done, folder / stage.name)
    return done[stages[-1].name]


def entered(root: Path, context: Context, command: list[str], extra: Mapping[str, str]) -> list[str]:
    """The command line that runs a command in a root, with its own environment only."""
    environment = [f"{name}={value}" for name, value in {**context.environment, **extra}.items()]
    inside = ["env", "-i", f"--chdir={context.folder}", *environment, *command]
    return ["unshare", "--mount", "sh", "-ec", _ENTER, "sh", str(root), context.user, *inside]


def size(root: Path) -> int:
    """The bytes of all files in a root."""
    files = (path.lstat() for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return sum({file.st_ino: file.st_size for file in files}.values())


def _follow(stage: Stage, done: Mapping[str, tuple[Path, Context]], root: Path) -> tuple[Path, Context]:
    base, inherited = done[stage.base]
    context = inherited.heir()
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(["cp", "-a", str(base), str(root)], check=True)
    for instruction in stage.instructions:
        context.note(instruction)
        if instruction.word == "RUN":
            subprocess.run(entered(root, context, ["sh", "-c", instruction.rest], _network()), check=True)
        elif instruction.word == "WORKDIR":
            (root / context.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif instruction.word == "COPY":
            _copy(instruction, {name: made for name, (made, _) in done.items()}, root, context.folder)
    return root, context


def _copy(instruction: Instruction, roots: Mapping[str, Path], root: Path, folder: str) -> None:
    words = instruction.rest.split()
    ours = not words[0].startswith("--from=")
    source = REPOSITORY if ours else roots[words.pop(0).removeprefix("--from=")]
    ignored = shutil.ignore_patterns(*(["__pycache__"] if ours else []))  # as .dockerignore says
    *names, to = words
    target = root / str(PurePosixPath(folder, to)).lstrip("/")
    for name in names:
        path = source / name.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, target, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(path, target)


def _mirror() -> str:
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(line.split()[0] for line in lines if line.endswith(" bookworm"))


def _network() -> dict[str, str]:
    """The settings with which pip reaches its index, without paths of this machine."""
    return {name: os.environ[name] for name in ("PIP_INDEX_URL", "PIP_CERT", "SSL_CERT_FILE") if name in os.environ}
