import json
import re
from collections.abc import Callable
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


HOSTILE = "a\x1b]0;title\x07\x1b[2J\u009b31m\u202eb"
SAFE = "a\\x1b]0;title\\x07\\x1b[2J\\x9b31m\\u202eb"


@pytest.mark.parametrize("print_", [output.print_error, output.print_note, output.print_sentence])
def test_sentences_escape_the_control_characters_of_their_values(
    print_: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    print_(f"There is no export {HOSTILE}.")

    printed = capsys.readouterr()
    assert f"There is no export {SAFE}.\n" in printed.out + printed.err


def test_an_error_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error("one\ntwo")

    assert capsys.readouterr().err == "waybill: one\ntwo\n"


@pytest.mark.parametrize("print_", [output.print_error, output.print_note, output.print_sentence])
def test_no_part_of_a_sentence_is_printed_as_an_emoji_or_markup(
    print_: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    print_("export env:m:prod of [red]host:100:")

    printed = capsys.readouterr()
    assert "export env:m:prod of [red]host:100:" in printed.out + printed.err


def test_no_part_of_a_value_is_printed_as_an_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields({"id": "env:m:prod"})
    output.print_table(("id",), [("host:100:",)], empty="")

    printed = capsys.readouterr().out
    assert "env:m:prod" in printed
    assert "host:100:" in printed


@pytest.mark.parametrize("text", ["東京\u3000レポート", "10\u00a0000 Zeilen", "👨\u200d👩\u200d👧"])
def test_spaces_and_joined_emojis_are_kept(text: str) -> None:
    assert output.format_cell(text) == text


def test_only_the_control_characters_of_a_text_are_escaped() -> None:
    assert output.format_cell("Übersicht\n東京") == "Übersicht\\n東京"


@pytest.mark.parametrize("text", [HOSTILE, "half of a pair \ud800", "東京"])
def test_json_is_safe_for_a_terminal_and_has_the_same_values(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json([text])

    printed = capsys.readouterr().out
    assert json.loads(printed) == [text]
    assert printed.replace("\n", "").isprintable()


def test_a_value_that_is_true_or_false_is_shown_as_yes_or_no() -> None:
    assert [output.format_cell(value) for value in (True, False, 1, 0)] == ["yes", "no", "1", "0"]
