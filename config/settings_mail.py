"""Declares the settings of the service that sends emails."""

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings

from config import urls

OAUTH = "SMTP_OAUTH"


class MailSettings(BaseSettings):
    """The sender, the SMTP server or SES, and the token endpoint of a server that requires OAuth 2."""

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
