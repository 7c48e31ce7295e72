"""Declares the settings of connections to Kafka, and finds those that contradict each other."""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings

from config import names, urls
from config.pem_files import AuthoritiesFile

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"]

PROTOCOL = "KAFKA_SECURITY_PROTOCOL"
MECHANISM = "KAFKA_SASL_MECHANISM"
USERNAME = "KAFKA_SASL_USERNAME"
PASSWORD = "KAFKA_SASL_PASSWORD"  # noqa: S105 (the name of a setting)
CERTIFICATE = "KAFKA_SSL_CERTIFICATE_LOCATION"
KEY = "KAFKA_SSL_KEY_LOCATION"
KEY_PASSWORD = "KAFKA_SSL_KEY_PASSWORD"  # noqa: S105 (the name of a setting)
OAUTH = "KAFKA_SASL_OAUTHBEARER"
AWS_REGION = "KAFKA_SASL_AWS_REGION"

OAUTHBEARER = "OAUTHBEARER"
AWS_MSK_IAM = "AWS_MSK_IAM"
TOKEN_MECHANISMS = frozenset({OAUTHBEARER, AWS_MSK_IAM})
"""Mechanisms that log in with a token which expires."""

_REQUIRED = {
    OAUTHBEARER: (f"{OAUTH}_TOKEN_ENDPOINT_URL", f"{OAUTH}_CLIENT_ID", f"{OAUTH}_CLIENT_SECRET"),
    AWS_MSK_IAM: (AWS_REGION,),
}
_ONLY_WITH = {**dict.fromkeys((*_REQUIRED[OAUTHBEARER], f"{OAUTH}_SCOPE"), OAUTHBEARER), AWS_REGION: AWS_MSK_IAM}


class KafkaSettings(BaseSettings):
    """The settings that Kafka clients connect with; their names follow librdkafka's."""

    kafka_bootstrap_servers: Annotated[str, AfterValidator(names.read_brokers)] | None = Field(
        None, alias="KAFKA_BOOTSTRAP_SERVERS"
    )
    kafka_security_protocol: Protocol = Field("PLAINTEXT", alias=PROTOCOL)
    kafka_sasl_mechanism: Mechanism = Field("PLAIN", alias=MECHANISM)
    kafka_sasl_username: str | None = Field(None, alias=USERNAME)
    kafka_sasl_password: SecretStr | None = Field(None, alias=PASSWORD)
    kafka_oauth_token_endpoint_url: Annotated[str, AfterValidator(urls.read_token_endpoint)] | None = Field(
        None, alias=f"{OAUTH}_TOKEN_ENDPOINT_URL"
    )
    kafka_oauth_client_id: str | None = Field(None, alias=f"{OAUTH}_CLIENT_ID")
    kafka_oauth_client_secret: SecretStr | None = Field(None, alias=f"{OAUTH}_CLIENT_SECRET")
    kafka_oauth_scope: str | None = Field(None, alias=f"{OAUTH}_SCOPE")
    kafka_aws_region: str | None = Field(None, alias=AWS_REGION, pattern=r"^[a-z]{2}(-[a-z]+)+-\d+$")
    kafka_ssl_ca_location: AuthoritiesFile | None = Field(None, alias="KAFKA_SSL_CA_LOCATION")
    kafka_ssl_certificate_location: str | None = Field(None, alias=CERTIFICATE)
    kafka_ssl_key_location: str | None = Field(None, alias=KEY)
    kafka_ssl_key_password: SecretStr | None = Field(None, alias=KEY_PASSWORD)


def find_kafka_problems(given: Mapping[str, str]) -> list[str]:
    """Return one sentence for each Kafka setting that another one requires, or that has no effect with another one.

    Values that are invalid by themselves are not checked here.
    """
    protocol, mechanism = given.get(PROTOCOL) or "PLAINTEXT", given.get(MECHANISM) or "PLAIN"
    if protocol not in get_args(Protocol) or mechanism not in get_args(Mechanism):
        return []
    present = {name for name, value in given.items() if value}
    return [*_judge_login(protocol, mechanism, present), *_judge_certificate(protocol, present)]


def _judge_login(protocol: str, mechanism: str, present: Collection[str]) -> Iterator[str]:
    sasl = protocol.startswith("SASL")
    for name in (USERNAME, PASSWORD) if sasl and mechanism not in TOKEN_MECHANISMS else ():
        if name not in present:
            yield f"{name} is missing: the value of {PROTOCOL} requires it"
    if not sasl and mechanism in TOKEN_MECHANISMS:
        yield f"{MECHANISM}={mechanism} requires {PROTOCOL}=SASL_SSL, but it is {protocol}"
    if protocol == "SASL_PLAINTEXT" and mechanism == AWS_MSK_IAM:
        yield f"{MECHANISM}={mechanism} requires {PROTOCOL}=SASL_SSL, because MSK accepts it over TLS only"
    for name in _REQUIRED.get(mechanism, ()):
        if name not in present:
            yield f"{name} is missing: {MECHANISM}={mechanism} requires it"
    for name, needed in _ONLY_WITH.items():
        if name in present and mechanism != needed:
            yield f"{name} requires {MECHANISM}={needed}, but it is {mechanism}"


def _judge_certificate(protocol: str, present: Collection[str]) -> Iterator[str]:
    for name, needed in ((CERTIFICATE, KEY), (KEY, CERTIFICATE), (KEY_PASSWORD, KEY)):
        if name in present and needed not in present:
            yield f"{needed} is missing: {name} requires it"
    if CERTIFICATE in present and not protocol.endswith("SSL"):
        yield f"{CERTIFICATE} requires {PROTOCOL} to be SSL or SASL_SSL, but it is {protocol}"
