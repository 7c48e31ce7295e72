"""Makes the images of the services that docker-compose.yml names, once for each content."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from tests.containers import images
from tests.containers.images import ROOT
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


def _fill_context(context: Path) -> None:
    """Collect what services/Containerfile copies; large files are links to the same data."""
    cache, versions = cache_folder(), pinned()
    shutil.copytree(SERVICES, context, dirs_exist_ok=True)
    shutil.copytree(cache / f"kafka-{versions['KAFKA']}", context / "kafka", copy_function=_link)
    _link(cache / f"kafka-tools-{versions['KAFKA']}.jar", context / "kafka" / "kafka-tools.jar")
    for name in ("versitygw", "prometheus", "mailpit"):
        _link(cache / f"{name}-{versions[name.upper()]}", context / name)
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
