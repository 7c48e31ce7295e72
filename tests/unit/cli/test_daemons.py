import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.daemons import run_consumer, run_notify
from config.settings import Misconfigured

SETTINGS = {
    "DATABASE_URL": "sqlite:///nowhere.db",
    "CLICKHOUSE_URL": "http://127.0.0.1:1",
    "WAYBILL_STORAGE_URL": "file:///nowhere",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "KAFKA_SECURITY_PROTOCOL": "SSL",
}


@pytest.mark.parametrize("run", [run_consumer, run_notify])
def test_a_daemon_does_not_start_with_a_certificate_that_can_not_be_used(
    run: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing.pem"
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    for name in ("KAFKA_SSL_CERTIFICATE_LOCATION", "KAFKA_SSL_KEY_LOCATION"):
        monkeypatch.setenv(name, str(missing))

    with pytest.raises(Misconfigured, match=f"KAFKA_SSL_CERTIFICATE_LOCATION: the file {missing} can't be read"):
        run()


@pytest.mark.parametrize("run", [run_consumer, run_notify])
def test_a_daemon_looks_for_a_folder_for_temporary_files_first(
    run: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])

    with pytest.raises(Misconfigured, match="no temporary file can be written: mount a writable /tmp, or set TMPDIR"):
        run()


@pytest.mark.slow
@pytest.mark.parametrize("run", ["run_consumer", "run_notify"])
def test_a_daemon_without_a_folder_for_temporary_files_says_what_is_needed(run: str) -> None:
    script = (
        "import tempfile\n"
        "tempfile._candidate_tempdir_list = lambda: ['/nowhere']\n"
        "import cli.daemons, cli.main\n"
        f"cli.main.app = cli.daemons.{run}\n"
        "cli.main.main()"
    )

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert ended.stderr == "waybill: no temporary file can be written: mount a writable /tmp, or set TMPDIR\n"
