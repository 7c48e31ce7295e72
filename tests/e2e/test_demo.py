"""The command `demo`, which needs no service besides its own."""

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.daemons import PATIENCE, command, eventually

pytestmark = pytest.mark.slow


@contextmanager
def run_demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a demo whose temporary folders are made in this folder, and which writes to `output` there."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    with (
        (folder / "output").open("w") as output,
        subprocess.Popen(
            command("demo", "--rows", "50", *arguments),
            env=environment,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
            # A process that a shell runs in the background ignores Ctrl-C, and so would its children.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (the test has no threads)
        ) as demo,
    ):
        try:
            yield demo
        finally:
            demo.kill()


def folders(folder: Path) -> list[Path]:
    """Return the folders of demos."""
    return list(folder.glob("waybill-demo-*"))


def test_another_table_can_be_exported_and_nothing_stays(tmp_path: Path) -> None:
    with run_demo(tmp_path, "--table", "scores", "--format", "jsonl") as demo:
        assert demo.wait(3 * PATIENCE) == 0

    output = (tmp_path / "output").read_text()
    assert re.search(r"-lf-scores-export-demo\.jsonl$", output, re.MULTILINE)
    assert "with the same sha256" in output
    assert folders(tmp_path) == []


def test_a_demo_that_is_kept_serves_its_link_until_ctrl_c_and_leaves_the_email(tmp_path: Path) -> None:
    with run_demo(tmp_path, "--keep") as demo:
        output = eventually(
            lambda: shown_when_kept(tmp_path / "output"), seconds=3 * PATIENCE, what="the demo keeps running"
        )
        (link,) = re.findall(r"^link +(\S+)$", output, re.MULTILINE)
        with urllib.request.urlopen(link) as answer:
            rows = answer.read().splitlines()
        (page,) = re.findall(r"operators' page is (\S+)$", output, re.MULTILINE)
        with urllib.request.urlopen(page) as answer:
            status_of_page = answer.status
        (settings,) = re.findall(r"first run: (\. \S+)$", output, re.MULTILINE)
        listed = subprocess.check_output(
            ["sh", "-c", f"{settings}; waybill list --json"], env=os.environ | {"PATH": os.defpath}
        )
        os.killpg(demo.pid, signal.SIGINT)
        status = demo.wait(PATIENCE)

    assert len(rows) > 50
    assert status == 0, (tmp_path / "output").read_text()
    assert status_of_page == 200
    assert [(each["project"], each["status"]) for each in json.loads(listed)] == [("demo", "COMPLETED")]
    (folder,) = folders(tmp_path)
    (email,) = re.findall(r"^file +(\S+\.eml)$", output, re.MULTILINE)
    assert Path(email).is_relative_to(folder)
    assert Path(email).read_bytes()
    assert (folder / "settings.sh").stat().st_mode & 0o077 == 0


def test_a_demo_that_is_terminated_stops_its_daemons(tmp_path: Path) -> None:
    with run_demo(tmp_path, "--keep") as demo:
        output = eventually(
            lambda: shown_when_kept(tmp_path / "output"), seconds=3 * PATIENCE, what="the demo keeps running"
        )
        (page,) = re.findall(r"operators' page is (\S+)$", output, re.MULTILINE)
        demo.terminate()
        demo.wait(PATIENCE)

    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(page)


def shown_when_kept(output: Path) -> str | None:
    """Return the output once the demo waits for Ctrl-C."""
    text = output.read_text()
    return text if "Ctrl-C ends it" in text else None
