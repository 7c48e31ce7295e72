from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

import pytest

from config.events import Status
from config.settings import Misconfigured
from notify.address import parse_address
from notify.compose import EmailContent, compose_email, read_sender
from tests.support.notices import NOW, SHA256, URL, completion

PAGE = "https://app.example.com/project/project-1/settings/exports"
FAILED: dict[str, Any] = {"status": Status.FAILED, "sha256": None, "rows": 0, "bytes": 0, "expires_at": None}


class Page(HTMLParser):
    """The tags, the links and the visible text of an HTML document."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_data(self, data: str) -> None:
        self.text += data


def content(**changes: Any) -> EmailContent:
    given: dict[str, Any] = {
        "recipient": parse_address("ada@example.com"),
        "user_name": "Ada Lovelace",
        "export_name": "traces of September",
        "url": URL,
        "page": PAGE,
        "expires_at": NOW + timedelta(hours=24),
    }
    return EmailContent(**(given | changes))


def receive(event: dict[str, Any] | None = None, sender: str = "exports@example.com", **changes: Any) -> EmailMessage:
    """Compose an email and parse its bytes, as a receiver does."""
    composed = compose_email(completion(**(event or {})), content(**changes), sender=read_sender(sender), now=NOW)
    return message_from_bytes(composed.as_bytes(), policy=policy.default)


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content())


def test_the_email_of_a_completed_export_contains_what_the_user_needs() -> None:
    message = receive()

    assert message["Subject"] == "Your data export is ready"
    assert message["From"] == "Data exports <exports@example.com>"
    assert message["To"] == "ada@example.com"
    assert message["Date"] == "Thu, 01 Oct 2026 14:05:00 +0000"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Auto-Response-Suppress"] == "All"
    assert message["Reply-To"] is None
    page = Page(part(message, "html"))
    assert page.links == [URL, PAGE]
    for text in (part(message, "plain"), page.text):
        for said in (
            "Hello Ada Lovelace,",
            "traces of September",
            "for 24 hours, until 2 October 2026, 14:05 UTC",
            "47,112",
            "12.4 MB",
            "CSV",
            SHA256,
            "all columns in a fixed order, regardless of your table view",
            "sent to ada@example.com",
        ):
            assert said in text
        assert "incomplete" not in text
    assert URL in part(message, "plain").splitlines()


def test_the_note_on_columns_is_left_out_if_the_query_names_them() -> None:
    message = receive(columns_chosen=True)
    page = Page(part(message, "html"))
    assert page.links == [URL, PAGE]
    for text in (part(message, "plain"), page.text):
        assert "columns" not in text
        assert "exports page" in text or "All your exports" in text


def test_the_email_of_a_failed_export_contains_the_reason_and_no_file() -> None:
    message = receive(FAILED | {"error": "Column <latncy> is not known"}, url=None, expires_at=None)

    assert message["Subject"] == "Your data export failed"
    page = Page(part(message, "html"))
    assert page.links == [PAGE]
    for text in (part(message, "plain"), page.text):
        assert "Column <latncy> is not known." in text
        assert "traces of September" in text
        assert SHA256 not in text


def test_a_failure_without_a_reason_is_an_internal_error() -> None:
    message = receive(FAILED)

    for text in (part(message, "plain"), Page(part(message, "html")).text):
        assert "An internal error occurred." in text
        assert "If it fails again, contact your administrator with the IDs below." in text


@pytest.mark.parametrize("event", [{}, FAILED])
def test_an_email_names_the_ids_that_support_asks_for(event: dict[str, Any]) -> None:
    ids = {"project_id": "project-9", "batch_export_id": "<b>export-9</b>\r\nBcc: eve@example.com"}
    message, usual = receive(event | ids), receive(event)

    for text in (part(message, "plain"), Page(part(message, "html")).text):
        assert "For support: project project-9, export <b>export-9</b> Bcc: eve@example.com" in text
    assert message.keys() == usual.keys()
    assert Page(part(message, "html")).tags == Page(part(usual, "html")).tags


def test_a_reason_has_the_direction_of_its_own_text() -> None:
    assert '<td class="reason" dir="auto"' in part(receive(FAILED | {"error": "سبب"}), "html")


def test_without_a_page_there_is_no_link_to_it() -> None:
    assert Page(part(receive(page=None), "html")).links == [URL]
    assert Page(part(receive(FAILED, page=None, url=None), "html")).links == []


def test_without_a_link_the_button_opens_the_page() -> None:
    message = receive(url=None)

    assert Page(part(message, "html")).links == [PAGE]
    assert PAGE in part(message, "plain").splitlines()
    assert "Open exports" in Page(part(message, "html")).text
    for text in (part(message, "plain"), Page(part(message, "html")).text):
        assert "You can download it there for 24 hours, until 2 October 2026, 14:05 UTC" in text
        assert not any(said in text for said in ("Download export", "Download it here", "The link is valid"))


def test_an_incomplete_file_is_announced() -> None:
    message = receive({"truncated": True, "rows": 1_000})

    for text in (part(message, "plain"), Page(part(message, "html")).text):
        assert "incomplete: it contains the first 1,000 rows, the limit for one export" in text


def test_parts_of_the_request_that_were_left_out_are_named() -> None:
    message, usual = receive(ignored="newKey, filter[0].<b>&"), receive(ignored=None)

    for text in (part(message, "plain"), Page(part(message, "html")).text):
        assert "Some parts of the request were not recognized and were ignored: newKey, filter[0].<b>&." in text
    assert "filter[0].&lt;b&gt;&amp;" in part(message, "html")
    assert "not recognized" not in part(usual, "plain") + part(usual, "html")


def test_names_of_parts_that_were_left_out_can_not_change_the_email() -> None:
    usual = receive(ignored="x")
    odd = receive(ignored="</p><script>alert(1)</script>\r\nBcc: eve@example.com\u202e\x1b{{ 7 * 7 }}" + "ü" * 10_000)

    assert odd.keys() == usual.keys()
    assert Page(part(odd, "html")).tags == Page(part(usual, "html")).tags
    assert "49" not in part(odd, "plain")
    assert not any(each in part(odd, "plain") + part(odd, "html") for each in "\x1b\u202e")
    assert len(odd.as_bytes()) < 40_000


@pytest.mark.parametrize("name", [None, "", " \r\n "])
def test_a_user_without_a_name_is_greeted_without_one(name: str | None) -> None:
    message = receive(user_name=name)

    assert part(message, "plain").splitlines()[0] == "Hello,"
    assert "Hello," in Page(part(message, "html")).text.splitlines()


@pytest.mark.parametrize("field", ["user_name", "export_name"])
@pytest.mark.parametrize(
    "name",
    [
        "Ada\r\nBcc: eve@example.com\r\n\r\nbody",
        "</strong><script>alert(1)</script><a href='https://evil.example'>",
        '"><img src=x onerror=alert(1)>',
        "{{ 7 * 7 }}{% raw %}",
        "\x00\x1b[31m\u202e",
        "ü" * 5_000,
        "👩‍💻 日本語 العربية",
    ],
)
def test_names_cannot_inject_headers_markup_or_templates(field: str, name: str) -> None:
    changes: dict[str, Any] = {field: name}
    harmless, odd = receive(), receive(**changes)

    assert odd.keys() == harmless.keys()
    assert odd["Subject"] == harmless["Subject"]
    assert Page(part(odd, "html")).tags == Page(part(harmless, "html")).tags
    assert Page(part(odd, "html")).links == Page(part(harmless, "html")).links
    assert "49" not in part(odd, "plain")
    assert not any(each in part(odd, "plain") + part(odd, "html") for each in "\x00\x1b\u202e")
    assert len(odd.as_bytes()) < 20_000


def test_a_url_cannot_leave_its_attribute() -> None:
    page = Page(part(receive(url="https://files.example.com/%22?a=1&b='x'"), "html"))

    assert page.links[0] == "https://files.example.com/%22?a=1&b='x'"
    assert "img" not in page.tags


def test_no_line_on_the_wire_is_too_long() -> None:
    odd = compose_email(
        completion(),
        content(export_name="x" * 900, url="https://files.example.com/" + "y" * 3_000),
        sender=read_sender("exports@example.com"),
        now=NOW,
    )

    assert all(len(line) <= 100 for line in odd.as_bytes().split(b"\r\n"))
    assert b"\n" not in odd.as_bytes().replace(b"\r\n", b"")


def test_the_same_event_has_the_same_message_id_and_another_has_another() -> None:
    first, again = receive()["Message-ID"], receive({"rows": 1})["Message-ID"]

    assert first == again
    assert first != receive({"event_id": "event-2"})["Message-ID"]
    assert first.endswith("@example.com>")


def test_the_sender_may_have_a_name() -> None:
    message = receive(sender='"Exports, Ünited" <exports@example.com>')

    assert [(each.display_name, each.addr_spec) for each in message["From"].addresses] == [
        ("Exports, Ünited", "exports@example.com")
    ]


def test_an_invalid_sender_is_a_misconfiguration() -> None:
    with pytest.raises(Misconfigured, match="EMAIL_FROM_ADDRESS is not an email address"):
        read_sender("nobody")
