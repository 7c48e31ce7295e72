"""The bridge from Langfuse's queue, with Node and the packages that install.sh keeps."""

import hashlib
import platform
import shutil
from pathlib import Path

from tests.services import installed
from tests.services.installed import Availability

FOLDER = Path(__file__).parents[2] / "deploy/bridge"


def available() -> Availability:
    """Whether the bridge can be started here."""
    for needed in (node(), packages()):
        if not needed.exists():
            return Availability("bridge", why_not=f"no {needed}")
    return Availability("bridge", version=f"Node {installed.pinned()['NODE']}")


def node() -> Path:
    """The Node that the bridge runs on."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return node_folder() / f"node_modules/node-linux-{machine}/bin/node"


def node_folder() -> Path:
    """The folder with the packages of Node and npm."""
    versions = installed.pinned()
    return installed.cache_folder() / f"node-{versions['NODE']}-{versions['NPM']}"


def packages() -> Path:
    """The folder of the packages that the bridge's lock file pins."""
    digest = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()[:16]
    return installed.cache_folder() / f"bridge-{digest}" / "node_modules"


def lay_out(folder: Path, *scripts: Path) -> Path:
    """Put the bridge, and scripts that use its packages, in a new folder beside the packages; returns the bridge."""
    shutil.copytree(FOLDER / "src", folder / "src")
    for each in (FOLDER / "package.json", *scripts):
        shutil.copy(each, folder)
    (folder / "node_modules").symlink_to(packages())
    return folder / "src/main.js"
