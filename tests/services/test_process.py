"""Servers are awaited, explain themselves, and end with whoever started them."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock

import psutil
import pytest

from tests.services import process
from tests.services.process import Program, accepts, folder, free_port, run, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="servers are started with setpriv")


def listening(port: int, log: Path) -> Program:
    return Program("server", [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)], log)


def gone(pid: int, seconds: float = 10) -> bool:
    try:
        psutil.Process(pid).wait(timeout=seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def test_a_server_is_ready_inside_the_block_and_gone_after_it(tmp_path: Path) -> None:
    port = free_port()
    with serving(listening(port, tmp_path / "log"), lambda: accepts(port)) as server:
        assert accepts(port)
    assert gone(server.pid, seconds=0)
    assert not accepts(port)


def test_a_server_that_ends_at_once_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    dying = Program("dying", ["sh", "-c", "echo the disk is on fire; exit 3"], tmp_path / "log")
    with pytest.raises(RuntimeError, match=r"dying ended with status 3:\nthe disk is on fire"):
        serving(dying, lambda: False).__enter__()


def test_a_server_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    mute = Program("mute", ["sh", "-c", f"echo $$ > {marker}; exec sleep 60"], tmp_path / "log")
    with pytest.raises(RuntimeError, match="mute was not ready within 1 s"):
        serving(mute, lambda: False, seconds=1).__enter__()
    assert gone(int(marker.read_text()))


def test_a_server_that_ignores_its_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PATIENCE", 0.2)
    marker = tmp_path / "pid"
    stubborn = Program("stubborn", ["sh", "-c", f"trap '' TERM; echo $$ > {marker}; sleep 60; :"], tmp_path / "log")
    with serving(stubborn, marker.exists) as server:
        pass
    assert server.returncode == -signal.SIGKILL


def test_a_command_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        run(Program("failing", ["sh", "-c", "echo no such thing >&2; exit 1"], tmp_path / "log"))


CRASHING = """
import os, signal, sys
from pathlib import Path
from tests.services.process import Program, folder, serving
kept = folder()
path = kept.__enter__()
marker = path / "pid"
program = Program("orphan", ["sh", "-c", f"echo $$ > {marker}; exec sleep 60"], path / "log")
serving(program, lambda: marker.exists() and marker.read_text().endswith("\\n")).__enter__()
print(path, marker.read_text().strip(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_is_killed_leaves_neither_servers_nor_folders() -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", CRASHING]
    crashed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert crashed.returncode == -signal.SIGKILL, crashed.stderr
    path, pid = crashed.stdout.split()
    assert gone(int(pid))
    assert Path(path).exists()
    with folder() as mine:
        assert not Path(path).exists()
        with folder():
            assert mine.exists(), "a folder in use was removed"
    assert not mine.exists()


def test_a_folder_can_be_entered_by_other_accounts() -> None:
    with folder() as path:
        assert path.stat().st_mode & 0o777 == 0o711


def test_free_ports_are_free() -> None:
    deadline = time.monotonic() + 1
    assert not any(accepts(free_port()) for _ in range(10))
    assert time.monotonic() < deadline


def test_a_port_in_use_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1], free_port()]
        monkeypatch.setattr(process, "_PORTS", ports)
        assert {free_port() for _ in range(20)} == {ports[1]}


def test_a_machine_that_gives_no_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = MagicMock()
    refused.return_value.__enter__.return_value.bind.side_effect = PermissionError(errno.EACCES, "no")
    monkeypatch.setattr(socket, "socket", refused)
    with pytest.raises(PermissionError):
        free_port()
