import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from embedded import stack

SECONDS = 30.0
KILLED_PARENT = """
import sys, time
from pathlib import Path
from embedded import stack
with stack.run_stack(Path(sys.argv[1])):
    print("started", flush=True)
    time.sleep(600)
"""


def parts() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def wait_until_stopped(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, SECONDS)
    assert not alive


def is_listening(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_all_parts_run_within_the_block_only(tmp_path: Path) -> None:
    before = set(parts())
    with stack.run_stack(tmp_path) as running:
        mine = [process for process in parts() if process not in before]
        addresses = [running.kafka, urlsplit(running.clickhouse).netloc, urlsplit(running.smtp).netloc]
        assert all(map(is_listening, addresses))
    wait_until_stopped(mine)
    assert not any(map(is_listening, addresses))


def test_the_stack_has_the_settings_that_waybill_needs(tmp_path: Path) -> None:
    running = stack.Stack(tmp_path, "127.0.0.1:9", "http://127.0.0.1:8", "smtp://127.0.0.1:7")
    assert running.environment() == {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "CLICKHOUSE_URL": "http://127.0.0.1:8",
        "DATABASE_URL": f"sqlite:///{tmp_path}/waybill.sqlite",
        "WAYBILL_STORAGE_URL": f"file://{tmp_path}/exports",
        "SMTP_CONNECTION_URL": "smtp://127.0.0.1:7",
        "EMAIL_FROM_ADDRESS": "exports@waybill.example",
        "LANGFUSE_S3_BATCH_EXPORT_ENABLED": "true",
    }


def test_parts_stop_when_the_block_fails(tmp_path: Path) -> None:
    before = set(parts())
    with pytest.raises(KeyError), stack.run_stack(tmp_path):  # noqa: PT012 (the block is what is tested)
        mine = [process for process in parts() if process not in before]
        raise KeyError
    wait_until_stopped(mine)


def test_parts_stop_when_their_parent_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED_PARENT, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"started\n"
        mine = psutil.Process(parent.pid).children(recursive=True)
        assert len(mine) == 3
        parent.kill()
    wait_until_stopped(mine)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("part", ["broker", "clickhouse", "mailsink"])
def test_a_part_announces_its_address_and_stops_on_a_signal(tmp_path: Path, part: str, number: signal.Signals) -> None:
    folder = [] if part == "broker" else ["--folder", str(tmp_path / "data")]
    command = [sys.executable, "-m", f"embedded.{part}", *folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["ready"] is True
        process.send_signal(number)
        assert process.wait(SECONDS) == 0
        assert process.stdout.read() == b""


def test_a_part_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "emails").write_text("a file in place of the folder")
    with pytest.raises(RuntimeError, match=r"(?s)mailsink did not start.*File exists"), stack.run_stack(tmp_path):
        pass


def test_a_missing_package_is_reported_with_the_extra_to_install(tmp_path: Path) -> None:
    (tmp_path / "chdb.py").write_text("raise ModuleNotFoundError('no chdb', name='chdb')")
    done = subprocess.run(
        [sys.executable, "-m", "embedded.clickhouse", "--folder", str(tmp_path / "data")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install '.[embedded]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_data_is_kept_over_a_restart(tmp_path: Path) -> None:
    import urllib.request

    def run(sql: str) -> bytes:
        with stack.run_stack(tmp_path) as running, urllib.request.urlopen(running.clickhouse, sql.encode()) as answer:
            content: bytes = answer.read()
            return content

    run("CREATE TABLE kept ENGINE = MergeTree ORDER BY n AS SELECT 42 AS n")
    began = time.monotonic()
    assert run("SELECT n FROM kept") == b"42\n"
    assert time.monotonic() - began < SECONDS
