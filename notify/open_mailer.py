"""Opens the email service that the settings name."""

from functools import partial

from config.settings import Misconfigured, Settings
from config.settings_mail import OAUTH
from notify.mailer import Mailer
from notify.smtp_url import parse_server
from runtime.oauth import TokenEndpoint, fetch_token
from runtime.tokens import Tokens

SES = "ses://"


def open_mailer(settings: Settings) -> Mailer | None:
    """Return what SMTP_CONNECTION_URL names, or None if it is not set; raises Misconfigured if a setting is wrong."""
    url, problems = settings.smtp_connection_url, _find_problems(settings)
    if problems:
        raise Misconfigured(problems)
    if url is None:
        return None
    if url.startswith(SES):
        from notify.ses import SesRegion

        return SesRegion(url.removeprefix(SES), settings.ssl_cert_file)
    return parse_server(url, tokens=_open_tokens(settings))


def _find_problems(settings: Settings) -> list[str]:
    """Return one sentence for each setting of OAuth that lacks another one."""
    given = {
        f"{OAUTH}_TOKEN_ENDPOINT_URL": settings.smtp_oauth_token_endpoint_url,
        f"{OAUTH}_CLIENT_ID": settings.smtp_oauth_client_id,
        f"{OAUTH}_CLIENT_SECRET": settings.smtp_oauth_client_secret,
        f"{OAUTH}_REFRESH_TOKEN": settings.smtp_oauth_refresh_token,
        f"{OAUTH}_SCOPE": settings.smtp_oauth_scope,
    }
    first = next((name for name, value in given.items() if value is not None), None)
    if first is None:
        return []
    required = (f"{OAUTH}_TOKEN_ENDPOINT_URL", f"{OAUTH}_CLIENT_ID")
    problems = [f"{name} is missing: {first} requires it" for name in required if given[name] is None]
    if settings.smtp_oauth_client_secret is None and settings.smtp_oauth_refresh_token is None:
        problems.append(f"{OAUTH}_CLIENT_SECRET or {OAUTH}_REFRESH_TOKEN is missing: {first} requires one")
    url = settings.smtp_connection_url
    if url is None:
        return [*problems, f"SMTP_CONNECTION_URL is missing: {first} requires it"]
    server = parse_server(url) if not url.startswith(SES) else None
    if server is None or server.user is None or server.password:
        problems.append(f"SMTP_CONNECTION_URL: with {first} it must be smtp:// or smtps:// with a user and no password")
    return problems


def _open_tokens(settings: Settings) -> Tokens | None:
    url, client = settings.smtp_oauth_token_endpoint_url, settings.smtp_oauth_client_id
    if url is None or client is None:
        return None
    secret, refresh = settings.smtp_oauth_client_secret, settings.smtp_oauth_refresh_token
    endpoint = TokenEndpoint(
        url,
        client,
        secret.get_secret_value() if secret is not None else None,
        OAUTH,
        settings.smtp_oauth_scope,
        refresh.get_secret_value() if refresh is not None else None,
    )
    return Tokens(partial(fetch_token, endpoint))
