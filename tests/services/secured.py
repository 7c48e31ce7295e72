"""The real services with TLS by a private authority each, and one user with the documented rights and no others."""

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from sqlalchemy import create_engine, make_url, text

from tests.services import kafka as kafka_service
from tests.services import pgbouncer, s3, smtp
from tests.services.kafka import Kafka
from tests.services.mail import Mailbox
from tests.services.postgres import Postgres
from tests.services.process import free_port
from tests.services.s3 import Bucket
from tests.services.stacks import clickhouse_database, own_names
from tests.support.certificates import Authority, make_authority
from tests.support.clickhouse_user import User, serve
from tests.support.grants import minimal_policy

SCHEMA, PREFIX = "langfuse", "exports/"
_USER, _SECRET = "exporter", "exporter-secret"
_KAFKA = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{secret}";
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
"""

Service = Literal["database", "clickhouse", "storage", "kafka", "mail"]
SERVICES: tuple[Service, ...] = ("database", "clickhouse", "storage", "kafka", "mail")
"""The services by the names that `waybill doctor` gives them."""


@dataclass(frozen=True)
class Secured:
    """Running services; the settings are those of the daemons, without SSL_CERT_FILE.

    `owner_url` is the URL of the database for the owner of its tables. `kafka` is the broker's listener for an
    administrator, without TLS. `smtp_ports` are for STARTTLS, and for TLS from the first byte.
    """

    settings: Mapping[str, str]
    owner_url: str
    role: str
    clickhouse: str
    kafka: Kafka
    bucket: Bucket
    mailbox: Mailbox
    smtp_ports: tuple[int, int | None]
    authorities: Mapping[Service, Authority]

    def trust(self, folder: Path, *, without: Service | None = None) -> dict[str, str]:
        """Return the setting with a file of all authorities but one."""
        path = folder / f"without-{without}.pem"
        trusted = (each.file.read_text() for service, each in self.authorities.items() if service != without)
        path.write_text("".join(trusted))
        return {"SSL_CERT_FILE": str(path)}


@contextlib.contextmanager
def start(folder: Path, postgres: Postgres, clickhouse: str) -> Iterator[Secured]:
    """Run the services in front of a database server and of a ClickHouse, which have no TLS, while the block runs."""
    folder.mkdir(mode=0o711)
    authorities = {
        service: make_authority(folder / f"ca-{service}", f"The {service} authority") for service in SERVICES
    }
    with contextlib.ExitStack() as running:
        names, open_ = own_names(), running.enter_context
        database = open_(postgres.database()).url
        role = open_(_role(database))
        pooler = open_(
            pgbouncer.start(
                folder / "pgbouncer",
                postgres.port,
                "transaction",
                "waybill",
                role,
                authority=authorities["database"],
            )
        )
        url = pooler.url(database, f"schema={SCHEMA}", "pgbouncer=true", "sslaccept=strict")
        tables = open_(clickhouse_database(clickhouse))
        reader = open_(serve(clickhouse, User(readonly=True), authorities["clickhouse"].server_context()))
        broker, sasl_port = open_(_kafka(folder / "kafka", authorities["kafka"], names))
        bucket = open_(_bucket(folder / "s3", authorities["storage"]))
        mail = open_(smtp.start(folder / "smtp", authority=authorities["mail"]))
        yield Secured(
            settings={
                **names,
                **bucket.environment(),
                **mail.environment(),
                "LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID": _USER,
                "LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY": _SECRET,
                "LANGFUSE_S3_BATCH_EXPORT_PREFIX": PREFIX,
                "DATABASE_URL": url.replace("waybill@", f"{role}@"),
                "CLICKHOUSE_URL": reader.url,
                "CLICKHOUSE_DB": tables,
                "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{sasl_port}",
                "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "KAFKA_SASL_USERNAME": _USER,
                "KAFKA_SASL_PASSWORD": _SECRET,
            },
            owner_url=url,
            role=role,
            clickhouse=clickhouse,
            kafka=broker,
            bucket=bucket,
            mailbox=mail.mailbox,
            smtp_ports=(mail.port, mail.tls_port),
            authorities=authorities,
        )


@contextlib.contextmanager
def _role(database: str) -> Iterator[str]:
    """Create a schema, and a role without rights."""
    role = f"exporter_{uuid.uuid4().hex[:12]}"
    engine = create_engine(make_url(database).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
    yield role
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))
    engine.dispose()


@contextlib.contextmanager
def _kafka(folder: Path, authority: Authority, names: Mapping[str, str]) -> Iterator[tuple[Kafka, int]]:
    """Run a broker whose user may do what is documented; gives the port of its listener with TLS and passwords."""
    folder.mkdir()
    keystore, port = folder / "keystore.pem", free_port()
    keystore.write_text(authority.key.read_text() + authority.certificate.read_text())
    properties = _KAFKA.format(user=_USER, secret=_SECRET, keystore=keystore)
    listener = f"SASL_SSL://127.0.0.1:{port}"
    with kafka_service.start(folder, properties=properties, listeners=[listener]) as running:
        topics = [name for setting, name in names.items() if setting.endswith("_TOPIC")]
        groups = [name for setting, name in names.items() if setting.endswith("_GROUP")]
        running.create_topics(*topics)
        rights = {ResourceType.TOPIC: ("READ", "WRITE", "DESCRIBE"), ResourceType.GROUP: ("READ", "DESCRIBE")}
        for kind, resources in ((ResourceType.TOPIC, topics), (ResourceType.GROUP, groups)):
            for resource in resources:
                allow(running, kind, resource, f"User:{_USER}", *(AclOperation[right] for right in rights[kind]))
        yield running, port


def allow(kafka: Kafka, kind: ResourceType, name: str, principal: str, *operations: AclOperation) -> None:
    """Give a Kafka user rights on a topic or a group."""
    bindings = [
        AclBinding(kind, name, ResourcePatternType.LITERAL, principal, "*", operation, AclPermissionType.ALLOW)
        for operation in operations
    ]
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for created in admin.create_acls(bindings).values():
        created.result(30)


@contextlib.contextmanager
def _bucket(folder: Path, authority: Authority) -> Iterator[Bucket]:
    """Run a store, and give a bucket in which the user may do what is documented under a prefix, but list nothing."""
    accounts = folder / "accounts"
    accounts.mkdir(parents=True)
    with s3.start(folder, options=["--iam-dir", accounts], authority=authority) as running:
        running.create_user(_USER, _SECRET)
        with running.bucket() as bucket:
            policy = minimal_policy(bucket.name, PREFIX, _USER, without="s3:ListBucket")
            bucket.client.put_bucket_policy(Bucket=bucket.name, Policy=policy)
            yield bucket
            bucket.client.delete_bucket_policy(Bucket=bucket.name)
