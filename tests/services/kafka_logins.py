"""A Kafka broker with TLS, for clients with a SCRAM password, a certificate or an OAuth 2 token."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tests.services import kafka
from tests.services.kafka import Kafka
from tests.services.process import free_port
from tests.support.certificates import Authority
from tests.support.token_issuer import CLIENT, SECRET, TokenIssuer

USER, PASSWORD = "exporter", "scram-password"

_PROPERTIES = """
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.ssl.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-512,OAUTHBEARER
connections.max.reauth.ms={reauthentication}
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\\
  org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class=\\
  org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.jwks.endpoint.url={keys}
listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.expected.issuer={issuer}
listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.expected.audience={audience}
"""


@dataclass(frozen=True)
class SecuredKafka:
    """A running broker with its listeners for certificates and for SASL, its authority, and the issuer of tokens."""

    plain: Kafka
    certificates: str
    sasl: str
    authority: Authority
    issuer: TokenIssuer

    def environment(self, login: str) -> dict[str, str]:
        """The settings that log in with a `password`, a `certificate` or a `token`."""
        sasl = {"KAFKA_BOOTSTRAP_SERVERS": self.sasl, "KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}
        password = {
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": USER,
            "KAFKA_SASL_PASSWORD": PASSWORD,
        }
        certificate = {
            "KAFKA_BOOTSTRAP_SERVERS": self.certificates,
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CERTIFICATE_LOCATION": str(self.authority.certificate),
            "KAFKA_SSL_KEY_LOCATION": str(self.authority.key),
        }
        token = {
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": self.issuer.token_url,
            "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": CLIENT,
            "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": SECRET,
            "KAFKA_SASL_OAUTHBEARER_SCOPE": self.issuer.scope,
        }
        logins = {"password": sasl | password, "certificate": certificate, "token": sasl | token}
        return {"KAFKA_SSL_CA_LOCATION": str(self.authority.file)} | logins[login]


@contextlib.contextmanager
def start(
    folder: Path, authority: Authority, issuer: TokenIssuer, *, reauthentication_ms: int = 3_600_000
) -> Iterator[SecuredKafka]:
    """Run a broker that trusts the certificates of `authority`, of which it has one, and the tokens of `issuer`.

    A connection must log in again after `reauthentication_ms`, or when its token expires.
    """
    folder.mkdir()
    (folder / "broker.pem").write_bytes(authority.key.read_bytes() + authority.certificate.read_bytes())
    ssl, sasl = free_port(), free_port()
    properties = _PROPERTIES.format(
        folder=folder,
        authority=authority.file,
        keys=issuer.keys_url,
        issuer=issuer.url,
        audience=issuer.audience,
        reauthentication=reauthentication_ms,
    )
    listeners = (f"SSL://127.0.0.1:{ssl}", f"SASL_SSL://127.0.0.1:{sasl}")
    allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={issuer.keys_url}"
    with kafka.start(folder, properties=properties, listeners=listeners, java_options=[allowed]) as running:
        _add_user(running.bootstrap)
        yield SecuredKafka(running, f"127.0.0.1:{ssl}", f"127.0.0.1:{sasl}", authority, issuer)


def _add_user(bootstrap: str) -> None:
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    wanted = UserScramCredentialUpsertion(USER, info, PASSWORD.encode())
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.alter_user_scram_credentials([wanted]).values():
        done.result(30)
