import json

import pytest

from config.events import Status
from notify.slack import write_message
from tests.support.notices import completion

PAGE = "https://langfuse.example.com/project/project-1/settings/exports"


def text(name: str = "traces of September", page: str | None = PAGE, **changes: object) -> str:
    message = json.loads(write_message(completion(**changes), name, page))
    assert message.keys() == {"text", "mrkdwn", "unfurl_links", "unfurl_media"}
    assert not any((message["mrkdwn"], message["unfurl_links"], message["unfurl_media"]))
    return str(message["text"])


def test_a_message_about_a_file_says_what_it_is_and_leads_to_the_exports_page() -> None:
    assert text() == (
        'Data export "traces of September" of project project-1 is ready: 47,112 rows, CSV, 12.4 MB.\n'
        f"Exports of the project: {PAGE}"
    )


def test_a_message_about_a_failure_has_the_reason() -> None:
    said = text(page=None, status=Status.FAILED, error="Column latncy is not known")

    assert said == (
        'Data export "traces of September" of project project-1 failed, so no file was created. '
        "Reason: Column latncy is not known."
    )


def test_a_message_about_an_incomplete_file_says_so() -> None:
    assert "The file is incomplete: it contains the first 47,112 rows" in text(truncated=True)


@pytest.mark.parametrize(
    "hostile",
    [
        "<!channel> now",
        "<!everyone>",
        "<@U123>",
        "<https://evil.example.com|your export>",
        "&lt;!channel&gt;",
        "\r\n<!here>",
        "\u202e<!channel>",
    ],
)
def test_names_and_reasons_are_neither_mentions_nor_links_with_another_text(hostile: str) -> None:
    for said in (
        text(hostile),
        text(project_id=hostile),
        text(format=hostile),
        text(status=Status.FAILED, error=hostile),
    ):
        assert "<" not in said
        assert ">" not in said
        assert "&lt;!channel&gt;" in said or "!channel" not in hostile or hostile.startswith("&")
        assert len(said.splitlines()) <= 2


def test_an_escape_in_a_name_is_shown_as_it_is() -> None:
    assert '"&amp;lt;!channel&amp;gt;"' in text("&lt;!channel&gt;")


def test_a_long_name_is_shortened() -> None:
    assert len(text("x" * 100_000)) < 500
