import logging
import re
from email.message import EmailMessage
from pathlib import Path
from typing import Any, get_args

import pytest

from config.settings import Misconfigured, Settings, load
from config.settings_mail import DEFAULT_ACCENT
from notify.colors import DARK_CARD, OF_SHAPES, OF_TEXT, WHITE, measure_contrast
from notify.compose import check_templates, compose_email, read_sender
from notify.deliver import read_transport
from notify.language import ENGLISH, Language, read_language
from notify.look import Look, read_look
from notify.templating import NAMES, Templates
from tests.support.notices import NOW, URL, completion
from tests.unit.notify.test_compose import FAILED, PAGE, Page, content, part

TEMPLATES = Path("notify/templates")
MAIL = {"EMAIL_FROM_ADDRESS": "exports@example.com", "SMTP_CONNECTION_URL": "smtp://mail.example:2525"}
ACCENTS = ["#000000", "#ffffff", "#808080", "#ffd400", "#0b6e4f", "#ff0000", "#00ff00", "#0000ff", DEFAULT_ACCENT]


def compose(look: Look, event: dict[str, Any] | None = None, **changes: Any) -> EmailMessage:
    sender = read_sender("exports@example.com")
    return compose_email(completion(**(event or {})), content(**changes), sender=sender, now=NOW, look=look)


def html(look: Look, event: dict[str, Any] | None = None, **changes: Any) -> str:
    return part(compose(look, event, **changes), "html")


def write(folder: Path, **files: str) -> Look:
    """A look with these templates: `body_html` is `export_ready/body.html`, `layout` is `layout.html`."""
    (folder / "export_ready").mkdir(exist_ok=True)
    for name, text in files.items():
        place = "layout.html" if name == "layout" else f"export_ready/{name.replace('_', '.')}"
        (folder / place).write_text(text)
    return Look(Templates(folder=folder))


@pytest.mark.parametrize("accent", ACCENTS)
def test_every_accent_color_is_readable(accent: str) -> None:
    found = Look(accent=accent).variables
    pairs = [("accent", "accent_text"), ("dark_accent", "dark_accent_text")]
    assert all(measure_contrast(str(found[one]), str(found[other])) >= OF_TEXT for one, other in pairs)
    assert measure_contrast(str(found["link"]), WHITE) >= OF_TEXT
    assert measure_contrast(str(found["dark_link"]), DARK_CARD) >= OF_TEXT
    assert measure_contrast(str(found["dark_accent"]), DARK_CARD) >= OF_SHAPES


def test_contrasts_are_those_of_wcag() -> None:
    assert measure_contrast(WHITE, "#000000") == pytest.approx(21)
    assert measure_contrast("#777777", WHITE) == pytest.approx(4.478, abs=0.001)
    assert f"background-color: {DARK_CARD}" in (TEMPLATES / "layout.html").read_text()


def test_a_readable_accent_color_stays_as_it_is() -> None:
    found = Look(accent="#0b6e4f").variables
    assert (found["accent"], found["link"], found["accent_text"]) == ("#0b6e4f", "#0b6e4f", WHITE)
    assert Look(accent="#ffd400").variables["accent_text"] == "#000000"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ACCENT_COLOR", "red", "must be a color with six hexadecimal digits, such as #1f4fd8"),
        ("ACCENT_COLOR", "#12345", "must be a color"),
        ("ACCENT_COLOR", "#1f4fd8;}", "must be a color"),
        ("LOGO_URL", "http://example.com/logo.png", "must start with https://"),
        ("LOGO_URL", "javascript:alert(1)", "must start with https://"),
        ("LOGO_URL", "https://user:secret@example.com/logo.png", "contains a user"),
        ("LOGO_URL", 'https://example.com/a" onerror="x', "not percent-encoded"),
        ("BRAND_NAME", "x" * 81, "at most 80 characters"),
        ("BRAND_NAME", "two\nlines", "one line"),
        ("FOOTER", "x" * 501, "at most 500 characters"),
        ("LANGUAGE", "xx", "'en' or 'de'"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        load({f"WAYBILL_EMAIL_{name}": value})
    (problem,) = raised.value.problems
    assert problem.startswith(f"WAYBILL_EMAIL_{name}: ")
    assert said in problem
    assert "secret" not in problem


def test_all_that_is_wrong_is_reported_at_startup(tmp_path: Path) -> None:
    wrong = {"WAYBILL_EMAIL_REPLY_TO": "nobody", "WAYBILL_EMAIL_TEMPLATES": str(tmp_path / "none")}
    with pytest.raises(Misconfigured) as raised:
        read_transport(load({**MAIL, **wrong}))
    folder, reply_to = raised.value.problems
    assert "is not a folder" in folder
    assert "WAYBILL_EMAIL_REPLY_TO is not an email address: it has no @" in reply_to


def test_a_reply_address_that_some_mail_servers_refuse_is_refused() -> None:
    with pytest.raises(Misconfigured, match="WAYBILL_EMAIL_REPLY_TO is not ASCII"):
        read_look(load({"WAYBILL_EMAIL_REPLY_TO": "jürgen@example.com"}))
    assert str(read_look(load({"WAYBILL_EMAIL_REPLY_TO": "a@exämple.com"})).reply_to) == "a@xn--exmple-cua.com"


def test_a_folder_without_templates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "body.html").write_text("x")
    with pytest.raises(Misconfigured, match=r"has none of the templates export_failed/body\.html"):
        read_look(load({"WAYBILL_EMAIL_TEMPLATES": str(tmp_path)}))


def test_settings_are_in_the_email(tmp_path: Path) -> None:
    write(tmp_path, subject_txt="Fertig: {{ export_name }}")
    given = {
        "REPLY_TO": "help@example.com",
        "BRAND_NAME": "Acme & <Sons>",
        "LOGO_URL": "https://example.com/logo.png?a=1&b=2",
        "ACCENT_COLOR": "#0B6E4F",
        "FOOTER": "Acme, 1 Main Street",
        "LANGUAGE": "de",
        "TEMPLATES": str(tmp_path),
    }
    transport = read_transport(load({**MAIL, **{f"WAYBILL_EMAIL_{name}": value for name, value in given.items()}}))
    assert transport is not None
    message = compose(transport.look)

    assert message["Reply-To"] == "help@example.com"
    assert message["Subject"] == "Fertig: traces of September"
    body = part(message, "html")
    assert '<img src="https://example.com/logo.png?a=1&amp;b=2" alt="Acme &amp; &lt;Sons&gt;"' in body
    assert 'bgcolor="#0b6e4f"' in body
    assert "Acme, 1 Main Street" in body
    assert "Acme, 1 Main Street" in part(message, "plain")
    assert '<html lang="de"' in body


@pytest.mark.parametrize("event", [{}, FAILED])
def test_outlook_gets_a_fixed_width_and_a_button_that_is_a_padded_cell(event: dict[str, Any]) -> None:
    body = html(Look(), event)
    assert re.search(r'<!--\[if mso\]><table role="presentation" width="560"', body)
    assert re.search(r'<td class="button-cell" [^>]*bgcolor="#1f4fd8" style="[^"]*mso-padding-alt:13px 28px;"', body)
    # Its engine knows neither padding of other elements nor widths in style sheets.
    blocks = re.findall(r'<(?:p|div|h1|body)\b[^>]*style="([^"]*)"', body)
    assert not [style for style in blocks if re.search(r"(?<!-)(?:padding|width):(?!0)", style)]


def test_the_preview_is_not_followed_by_the_text_of_the_email() -> None:
    shown = html(Look()).split("47,112 rows, 12.4 MB. Available until 2 October 2026, 14:05 UTC")[1].split("</div>")[0]
    assert shown == "&#847;&zwnj;&nbsp;" * 60


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% if %}", r"export_ready/body\.html, line 1, in WAYBILL_EMAIL_TEMPLATES can't be rendered"),
        ("\n{{ colour }}", r"export_ready/body\.html, line 2, .*'colour' is undefined"),
        ("{% include 'none.html' %}", "includes 'none.html', which does not exist"),
        ("{% include '../../../etc/passwd' %}", "which does not exist"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ _('{rows.__class__}') }}{{ _('{nothing}') }}", "'nothing' is undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_broken_template_is_found_at_startup(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, body_html=text)
    with pytest.raises(Misconfigured) as raised:
        read_transport(load({**MAIL, "WAYBILL_EMAIL_TEMPLATES": str(tmp_path)}))
    (problem,) = raised.value.problems
    assert re.search(said, problem)


def test_a_template_that_is_not_text_and_an_empty_subject_are_found_at_startup(tmp_path: Path) -> None:
    look = write(tmp_path, subject_txt=" \n")
    with pytest.raises(Misconfigured, match="the subject is empty"):
        check_templates(look)
    (tmp_path / "export_ready/subject.txt").write_bytes(b"\xff")
    with pytest.raises(Misconfigured, match="can't decode"):
        check_templates(Look(Templates(folder=tmp_path)))


def test_a_template_that_fails_for_some_emails_only_is_found_at_startup(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"body\.txt, line 1"):
        check_templates(write(tmp_path, body_txt="{{ 1 // (url | length if url else 0) }}"))


@pytest.mark.parametrize("text", ["{% if %}", "{{ colour }}", "{{ ''.__class__.__mro__ }}"])
def test_an_email_is_built_in_if_its_template_fails(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    look = write(tmp_path, body_html="<p>{{ export_name }}</p>")
    check_templates(look)
    assert html(look).strip() == "<p>traces of September</p>"
    write(tmp_path, body_html=text)
    with caplog.at_level(logging.ERROR):
        message = compose(Look(Templates(folder=tmp_path)))

    assert Page(part(message, "html")).links == [URL, PAGE]
    assert "the built-in templates are used" in caplog.text


def test_values_are_escaped_in_templates_of_a_folder(tmp_path: Path) -> None:
    look = write(tmp_path, body_html="{{ user_name }}{{ _('x {user_name}') }}{{ _('<i> {y}', y=export_name) }}")
    found = html(look, user_name="<b>", export_name="{rows}</i>")
    assert found.strip() == "&lt;b&gt;x &lt;b&gt;&lt;i&gt; {rows}&lt;/i&gt;"


def test_a_layout_alone_may_be_replaced(tmp_path: Path) -> None:
    look = write(tmp_path, layout="<main>{% block content %}{% endblock %}</main>")
    check_templates(look)
    assert html(look).startswith("<main>")
    assert Page(html(look)).links == [URL, PAGE]


def test_the_templates_that_may_be_replaced_are_the_built_in_ones() -> None:
    assert {str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.*")} == NAMES


CODES = get_args(Settings.model_fields["email_language"].annotation)
TRANSLATED = sorted(set(CODES) - {ENGLISH.code})


def test_the_languages_are_those_that_exist() -> None:
    assert sorted(path.stem for path in Path("notify/languages").glob("*.json")) == TRANSLATED


@pytest.mark.parametrize("code", TRANSLATED)
def test_a_language_has_every_text_with_its_placeholders(code: str) -> None:
    texts = read_language(code).texts
    sources = [path.read_text() for path in TEMPLATES.rglob("*.*")]
    used = {text for source in sources for _, text in re.findall(r"""\b_\((["'])(.+?)\1[,)]""", source)}
    assert len(used) > 20
    assert used - texts.keys() == set()
    for english, other in texts.items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", other))


@pytest.mark.parametrize("event", [{"truncated": True}, FAILED])
def test_an_email_can_be_in_another_language(event: dict[str, Any]) -> None:
    german = read_language("de")
    message = compose(Look(Templates(german), german), event, ignored="key", may_end_early=True)
    english = compose(Look(), event, ignored="key", may_end_early=True)

    both = part(message, "plain") + Page(part(message, "html")).text
    assert not re.search(r"\b(?:the|your|export was|file|hours|October)\b", both)
    assert "Oktober 2026" in both
    assert Page(part(message, "html")).links == Page(part(english, "html")).links


def test_numbers_are_written_as_the_language_writes_them() -> None:
    german = read_language("de")
    text = part(compose(Look(Templates(german), german)), "plain")
    assert "Zeilen: 47.112" in text
    assert "12,4 MB" in text
    assert "24 Stunden" in text


def test_a_text_without_a_translation_is_english() -> None:
    partial = Language("xx", {"Your data export is ready": "Klaar"})
    message = compose(Look(Templates(partial), partial))
    assert message["Subject"] == "Klaar"
    assert "for 24 hours, until 2 October 2026" in part(message, "plain")
