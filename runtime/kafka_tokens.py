"""Opens the source of the tokens for Kafka: an OIDC token endpoint, or the signer of Amazon MSK."""

from functools import lru_cache, partial

from config.errors import Unavailable
from config.settings import Misconfigured, Settings
from config.settings_kafka import AWS_MSK_IAM, MECHANISM, OAUTH, OAUTHBEARER
from runtime.oauth import TokenEndpoint, fetch_token
from runtime.tokens import Token, Tokens

SIGNER = "aws-msk-iam-sasl-signer-python"


def open_tokens(settings: Settings) -> Tokens | None:
    """Return the tokens for the brokers, one object for all clients of a process; None if they log in without one.

    Raises Misconfigured if the signer of MSK is not installed.
    """
    if not settings.kafka_security_protocol.startswith("SASL"):
        return None
    if settings.kafka_sasl_mechanism == OAUTHBEARER:
        return _open_endpoint(_read_endpoint(settings))
    if settings.kafka_sasl_mechanism == AWS_MSK_IAM and settings.kafka_aws_region is not None:
        return _open_signer(settings.kafka_aws_region)
    return None


def _read_endpoint(settings: Settings) -> TokenEndpoint:
    url, client, secret = (
        settings.kafka_oauth_token_endpoint_url,
        settings.kafka_oauth_client_id,
        settings.kafka_oauth_client_secret,
    )
    if url is None or client is None or secret is None:
        raise Misconfigured([f"{OAUTH}_TOKEN_ENDPOINT_URL, {OAUTH}_CLIENT_ID or {OAUTH}_CLIENT_SECRET is missing"])
    return TokenEndpoint(url, client, secret.get_secret_value(), OAUTH, settings.kafka_oauth_scope)


# Clients are built again and again, and each must not fetch a token of its own.
@lru_cache(maxsize=4)
def _open_endpoint(endpoint: TokenEndpoint) -> Tokens:
    return Tokens(partial(fetch_token, endpoint))


@lru_cache(maxsize=4)
def _open_signer(region: str) -> Tokens:
    try:
        import aws_msk_iam_sasl_signer  # noqa: F401 (to say at start that it is missing)
    except ImportError as error:
        problem = f"{MECHANISM}={AWS_MSK_IAM} needs the package {SIGNER}: run pip install '.[msk]' in the repository"
        raise Misconfigured([problem]) from error
    return Tokens(partial(sign_for_msk, region))


def sign_for_msk(region: str, now: float) -> Token:
    """Sign a token for the brokers of a region by AWS's default credential chain; raises Unavailable without one."""
    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped] # it ships no types
    from botocore.session import Session  # type: ignore[import-untyped] # the same

    try:
        if Session().get_credentials() is None:
            raise Unavailable(
                "no token can be signed for MSK, because there are no AWS credentials: does the process have a role?"
            )
        value, expires_ms = MSKAuthTokenProvider.generate_auth_token(region)
    except (BotoCoreError, ClientError, OSError) as error:
        raise Unavailable(
            f"no token can be signed for MSK ({type(error).__name__}): are the AWS credentials of the process right?"
        ) from error
    return Token(value, expires_ms / 1000, expires_ms / 1000 - now)
