"""Declares the settings of the service that sends emails, and of how emails look."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, StringConstraints
from pydantic_settings import BaseSettings

from config import urls

OAUTH = "SMTP_OAUTH"
LOOK = "WAYBILL_EMAIL"
DEFAULT_ACCENT = "#1f4fd8"


def _read_color(value: str) -> str:
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}", value):
        raise ValueError(
            f"must be a color with six hexadecimal digits, such as {DEFAULT_ACCENT}, and not {value[:40]!r}"
        )
    return value.lower()


def _read_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be one line without control characters")
    return value.strip()


class MailSettings(BaseSettings):
    """The sender, the SMTP server or SES, the token endpoint of a server that requires OAuth 2, and the look."""

    email_from_address: str | None = Field(None, alias="EMAIL_FROM_ADDRESS")
    smtp_connection_url: Annotated[str, AfterValidator(urls.read_mail)] | None = Field(
        None, alias="SMTP_CONNECTION_URL", repr=False
    )
    smtp_oauth_token_endpoint_url: Annotated[str, AfterValidator(urls.read_token_endpoint)] | None = Field(
        None, alias=f"{OAUTH}_TOKEN_ENDPOINT_URL"
    )
    smtp_oauth_client_id: str | None = Field(None, alias=f"{OAUTH}_CLIENT_ID")
    smtp_oauth_client_secret: SecretStr | None = Field(None, alias=f"{OAUTH}_CLIENT_SECRET")
    smtp_oauth_refresh_token: SecretStr | None = Field(None, alias=f"{OAUTH}_REFRESH_TOKEN")
    smtp_oauth_scope: str | None = Field(None, alias=f"{OAUTH}_SCOPE")

    email_reply_to: str | None = Field(None, alias=f"{LOOK}_REPLY_TO")
    email_language: Literal["en", "de"] = Field("en", alias=f"{LOOK}_LANGUAGE")
    email_brand_name: Annotated[str, StringConstraints(max_length=80), AfterValidator(_read_line)] | None = Field(
        None, alias=f"{LOOK}_BRAND_NAME"
    )
    email_logo_url: Annotated[str, AfterValidator(urls.read_image)] | None = Field(None, alias=f"{LOOK}_LOGO_URL")
    email_accent_color: Annotated[str, AfterValidator(_read_color)] = Field(
        DEFAULT_ACCENT, alias=f"{LOOK}_ACCENT_COLOR"
    )
    email_footer: Annotated[str, StringConstraints(max_length=500), AfterValidator(_read_line)] | None = Field(
        None, alias=f"{LOOK}_FOOTER"
    )
    email_templates: str | None = Field(None, alias=f"{LOOK}_TEMPLATES")
