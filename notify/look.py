"""Reads the settings for how emails look: brand, color, footer, language and templates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from config.settings import Misconfigured, Settings
from config.settings_mail import DEFAULT_ACCENT
from notify.address import EmailAddress, NotAnAddress, parse_address
from notify.colors import DARK_CARD, OF_SHAPES, OF_TEXT, WHITE, choose_text, make_distinct
from notify.language import ENGLISH, Language, read_language
from notify.templating import NAMES, Templates


@dataclass(frozen=True)
class Look:
    """How all emails look, and where replies to them go; `logo_url` is an HTTPS URL, `accent` a color `#rrggbb`."""

    templates: Templates = field(default_factory=Templates)
    language: Language = ENGLISH
    brand: str | None = None
    logo_url: str | None = None
    footer: str | None = None
    accent: str = DEFAULT_ACCENT
    reply_to: EmailAddress | None = None

    @cached_property
    def variables(self) -> Mapping[str, str | None]:
        """The variables of templates that are the same in all emails."""
        dark_accent = make_distinct(self.accent, DARK_CARD, OF_SHAPES)
        return {
            "brand": self.brand,
            "logo_url": self.logo_url,
            "footer": self.footer,
            "accent": self.accent,
            "accent_text": choose_text(self.accent),
            "link": make_distinct(self.accent, WHITE, OF_TEXT),
            "dark_accent": dark_accent,
            "dark_accent_text": choose_text(dark_accent),
            "dark_link": make_distinct(self.accent, DARK_CARD, OF_TEXT),
        }


def read_look(settings: Settings) -> Look:
    """Read the settings; raises Misconfigured with all that is wrong, except in what the templates contain."""
    problems: list[str] = []
    folder = None if settings.email_templates is None else Path(settings.email_templates)
    if folder is not None:
        problems += _find_folder_problems(folder)
    reply_to = None
    try:
        reply_to = None if settings.email_reply_to is None else parse_address(settings.email_reply_to)
    except NotAnAddress as error:
        problems.append(f"WAYBILL_EMAIL_REPLY_TO is not an email address: {error}")
    if reply_to is not None and not str(reply_to).isascii():
        problems.append("WAYBILL_EMAIL_REPLY_TO is not ASCII before the @, which not every mail server accepts")
    if problems:
        raise Misconfigured(problems)
    language = read_language(settings.email_language)
    return Look(
        Templates(language, folder),
        language,
        settings.email_brand_name,
        settings.email_logo_url,
        settings.email_footer,
        settings.email_accent_color,
        reply_to,
    )


def _find_folder_problems(folder: Path) -> list[str]:
    if not folder.is_dir():
        return [f"WAYBILL_EMAIL_TEMPLATES: {folder} is not a folder, or this user may not open it"]
    if not any((folder / name).is_file() for name in NAMES):
        return [f"WAYBILL_EMAIL_TEMPLATES: the folder {folder} has none of the templates {', '.join(sorted(NAMES))}"]
    return []
