"""Makes the images of the services that docker-compose.yml names, once for each content."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from tests.containers import images
from tests.containers.images import ROOT
from tests.services import bridge as bridge_service
from tests.services.installed import cache_folder, pinned

SERVICES = Path(__file__).parent / "services"


def services(*targets: str) -> dict[str, str]:
    """The names of the images of services by target of services/Containerfile, built if they are not there."""
    with images.lock(), tempfile.TemporaryDirectory(prefix="waybill-context-") as folder:
        context = Path(folder)
        _fill_context(context)
        base = images.make_base()
        files = [path for path in context.rglob("*") if path.is_file()]
        names = {}
        for target in targets:
            digest = images.digest(base, target, *images.contents(context, files))
            names[target] = f"localhost/waybill-tests/{target}:{digest}"
            if not images.exists(names[target]):
                images.build(names[target], SERVICES / "Containerfile", context, "--target", target)
        return names


def bridge() -> str:
    """The name of the bridge's image, built with its Dockerfile if it is not there."""
    folder = bridge_service.FOLDER
    (base,) = set(re.findall(r"^FROM (\S+:\S+)", (folder / "Dockerfile").read_text(), re.MULTILINE))
    node = services("node")["node"]
    with images.lock():
        images.tag(node, f"docker.io/library/{base}")
        files = [path for path in folder.rglob("*") if path.is_file() and "node_modules" not in path.parts]
        name = f"localhost/waybill-tests/bridge:{images.digest(node, *images.contents(folder, files))}"
        if not images.exists(name):
            images.build(name, folder / "Dockerfile", folder)
    return name


def _fill_context(context: Path) -> None:
    """Collect what services/Containerfile copies; large files are links to the same data."""
    cache, versions = cache_folder(), pinned()
    shutil.copytree(SERVICES, context, dirs_exist_ok=True)
    shutil.copytree(cache / f"kafka-{versions['KAFKA']}", context / "kafka", copy_function=_link)
    _link(cache / f"kafka-tools-{versions['KAFKA']}.jar", context / "kafka" / "kafka-tools.jar")
    for name in ("versitygw", "prometheus", "mailpit"):
        _link(cache / f"{name}-{versions[name.upper()]}", context / name)
    shutil.copytree(bridge_service.node_folder(), context / "node", symlinks=True, copy_function=_link)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "embedded", context / "embedded", ignore=ignored)
    demo = (ROOT / "requirements-demo.lock").read_text()
    engine = re.search(r"^chdb-core==(?:.*\\\n)*.*\n", demo, re.MULTILINE)
    assert engine, "requirements-demo.lock has no chdb-core"
    (context / "requirements.lock").write_text((SERVICES / "requirements.lock").read_text() + engine[0])


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
