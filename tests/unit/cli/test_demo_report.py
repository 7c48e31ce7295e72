import sys

import pytest

from cli.demo_report import say


def test_a_path_in_a_long_sentence_stays_in_one_piece_with_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    say("To use other commands, first run: . /tmp/waybill-demo-elzfru7a/settings.sh")

    assert ". /tmp/waybill-demo-elzfru7a/settings.sh\n" in capsys.readouterr().out
