"""Apache Kafka: one KRaft node, broker and controller in one process, on free ports."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.services import installed
from tests.services.installed import Availability
from tests.services.process import Program, accepts, free_port, run, serving

_CLUSTER_ID = "d2F5YmlsbC10ZXN0cy0wMQ"
_OLDEST_JAVA = 17

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}{more}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised}{more}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs={data}
auto.create.topics.enable=false
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
"""


@dataclass(frozen=True)
class Kafka:
    """A running broker."""

    bootstrap: str
    pid: int
    data: Path
    """The folder with a folder for each partition."""

    def environment(self) -> dict[str, str]:
        """The settings that point Waybill here."""
        return {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap}

    def create_topics(self, *names: str, partitions: int = 4) -> None:
        """Create topics; those that exist are left as they are."""
        admin = _admin(self.bootstrap)
        wanted = [NewTopic(name, num_partitions=partitions, replication_factor=1) for name in names]
        for created in admin.create_topics(wanted).values():
            try:
                created.result(timeout=30)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise


def available() -> Availability:
    """Whether the broker can be started here."""
    if not _jars().is_dir():
        return Availability("kafka", why_not=f"no {_jars()}")
    java = re.search(r'version "(\d+)', installed.first_line("java", "-version"))
    if not java or int(java[1]) < _OLDEST_JAVA:
        return Availability("kafka", why_not=f"no Java {_OLDEST_JAVA} or later on the PATH")
    return Availability("kafka", version=f"Apache Kafka {installed.pinned()['KAFKA']}, Java {java[1]}")


@contextlib.contextmanager
def start(
    folder: Path,
    port: int | None = None,
    advertised: int | None = None,
    properties: str = "",
    listeners: Sequence[str] = (),
    java_options: Sequence[str] = (),
) -> Iterator[Kafka]:
    """Run a broker on data in `folder`; the same folder and port again is the same broker, restarted.

    `advertised` is the port that it sends its clients to, its own unless there is a proxy before it. `properties` are
    more lines of its configuration, `listeners` more of its listeners, `java_options` those of its JVM.
    """
    port = port or free_port()
    folder.mkdir(exist_ok=True)
    config = folder / "server.properties"
    config.write_text(
        _PROPERTIES.format(
            broker=port,
            advertised=advertised or port,
            controller=free_port(),
            more="".join(f",{each}" for each in listeners),
            data=folder / "data",
        )
        + properties
    )
    log = folder / "kafka.log"
    if not (folder / "data").exists():
        format_ = _java("kafka.tools.StorageTool", "format", "--cluster-id", _CLUSTER_ID, "--config", config)
        run(Program("kafka format", format_, log))
    bootstrap = f"127.0.0.1:{port}"
    java, *arguments = _java("kafka.Kafka", config)
    program = Program("kafka", [java, *java_options, *arguments], log)
    with serving(program, lambda: _answers(bootstrap)) as process:
        yield Kafka(bootstrap, process.pid, folder / "data")


def _jars() -> Path:
    return installed.cache_folder() / f"kafka-{installed.pinned()['KAFKA']}"


def _java(main: str, *arguments: str | Path) -> list[str | Path]:
    # A broker that lives for minutes gains more from a quick start than from the second compiler.
    quick = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
    errors = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    return ["java", *quick, errors, "-cp", f"{_jars()}/*", main, *arguments]


def _admin(bootstrap: str) -> Any:
    # librdkafka would write to stderr when the broker is stopped under it.
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})


def _answers(bootstrap: str) -> bool:
    port = int(bootstrap.rpartition(":")[2])
    if not accepts(port):
        return False
    try:
        return bool(_admin(bootstrap).list_topics(timeout=5).brokers)
    except KafkaException:
        return False
