import re
from datetime import UTC, datetime

import pytest
from rich.console import Console

from cli import output

ID = "cm9x8y7z6w5v4u3t2s1r0q9p0"
REASON = "The column 'latncy' of the filter is not known, and neither is the column 'tokns'."


@pytest.fixture(params=["terminal", "pipe"])
def is_terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether results go to a terminal; its width is 80 columns."""
    terminal: bool = request.param == "terminal"
    monkeypatch.setattr(
        output, "console", lambda: Console(width=80, force_terminal=terminal, color_system=None, soft_wrap=not terminal)
    )
    return terminal


def test_an_id_is_never_cut(is_terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    del is_terminal
    output.print_table(("id", "project", "other", "error"), [(ID, ID, ID, REASON)], empty="")

    assert capsys.readouterr().out.count(ID) == 3


def test_only_a_terminal_wraps_the_last_column(is_terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("id", "error"), [(ID, REASON)], empty="")

    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["id", "error"]
    assert (len(lines) > 1) is is_terminal
    assert max(map(len, lines)) <= 80 or not is_terminal
    assert " ".join(" ".join(lines).split()) == f"{ID} {REASON}"


def test_a_row_that_is_wider_than_a_terminal_takes_several_lines_there(
    is_terminal: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ("id", "project", "status", "table", "created", "finished")
    created, finished = "2026-10-01 14:05:00Z", "2026-10-01 14:06:00Z"
    rows = [(ID, ID, status, "dataset_run_items", created, finished) for status in ("PROCESSING", "QUEUED")]

    output.print_table(columns, rows, empty="")

    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == (6 if is_terminal else 3)
    assert max(map(len, printed)) <= 80 or not is_terminal
    assert re.split(r"\s{2,}|\n", "\n".join(printed)) == [*columns, *rows[0], *rows[1]]
    starts = {line.find(text) for line in printed for text in ("status", "PROCESSING", "QUEUED") if text in line}
    assert len(starts) == 1


def test_a_value_that_is_wider_than_a_terminal_is_whole(capsys: pytest.CaptureFixture[str], is_terminal: bool) -> None:
    del is_terminal
    output.print_table(("id", "project", "time"), [(ID, "p" * 300, "2026-10-01 14:05:00Z")], empty="")

    assert "p" * 300 in capsys.readouterr().out


def test_a_field_is_one_line_so_that_a_link_can_be_opened(
    is_terminal: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    del is_terminal
    output.print_fields({"link": "https://exports.example/d/" + "x" * 200})

    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_table_without_rows_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("id",), [], empty="There are no exports.")

    assert capsys.readouterr().out == "There are no exports.\n"


def test_control_characters_and_markup_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields({"name": "[bold]x[/]\x1b[2J", "log": None, "created": datetime(2026, 10, 1, 14, 5, tzinfo=UTC)})

    printed = capsys.readouterr().out
    assert "\x1b[2J" not in printed
    assert [line.split(maxsplit=1)[1] for line in printed.splitlines()] == [
        "[bold]x[/]\\x1b[2J",
        "-",
        "2026-10-01 14:05:00Z",
    ]


def test_json_has_times_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"created": datetime(2026, 10, 1, 14, 5, tzinfo=UTC), "name": "ü"})

    assert capsys.readouterr().out == '{\n  "created": "2026-10-01T14:05:00.000Z",\n  "name": "ü"\n}\n'
