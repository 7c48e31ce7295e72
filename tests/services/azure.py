"""An emulator of Azure Blob Storage: Azurite on a temporary folder, with a new container for whoever asks."""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient, ContainerClient

from tests.services import installed
from tests.services.installed import Availability
from tests.services.process import Program, accepts, free_port, serving

ACCOUNT = "waybillexports"
KEY = "d2F5YmlsbC10ZXN0LWtleQ=="
API_VERSION = "2021-12-02"


@dataclass(frozen=True)
class Container:
    """One container of a running emulator, seen by a client that is not the product's."""

    endpoint: str
    name: str

    def environment(self) -> dict[str, str]:
        """The settings that point Waybill here."""
        return {
            "LANGFUSE_USE_AZURE_BLOB": "true",
            "LANGFUSE_S3_BATCH_EXPORT_BUCKET": self.name,
            "LANGFUSE_S3_BATCH_EXPORT_ENDPOINT": self.endpoint,
            "LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID": ACCOUNT,
            "LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY": KEY,
        }

    @cached_property
    def client(self) -> ContainerClient:
        """A client of the container."""
        return open_service(self.endpoint).get_container_client(self.name)

    def objects(self) -> dict[str, int]:
        """The bytes of every committed blob by name."""
        return {str(blob.name): int(blob.size) for blob in self.client.list_blobs()}

    def uploads(self) -> list[str]:
        """The names of the blobs that have blocks and were never committed."""
        committed = self.objects()
        found = (str(blob.name) for blob in self.client.list_blobs(include=["uncommittedblobs"]))
        return [name for name in found if name not in committed]

    def read(self, key: str) -> bytes:
        """The content of a blob."""
        return self.client.download_blob(key).readall()


@dataclass(frozen=True)
class Azure:
    """A running emulator."""

    endpoint: str
    pid: int

    @contextlib.contextmanager
    def bucket(self) -> Iterator[Container]:
        """A new container, deleted at the end with all that is in it."""
        container = Container(self.endpoint, f"test-{uuid.uuid4().hex[:12]}")
        container.client.create_container()
        try:
            yield container
        finally:
            container.client.delete_container()


def open_service(endpoint: str, **options: Any) -> BlobServiceClient:
    """A client of the account, which is not the product's."""
    credential = {"account_name": ACCOUNT, "account_key": KEY}
    return BlobServiceClient(endpoint, credential=credential, api_version=API_VERSION, **options)


def available() -> Availability:
    """Whether the emulator can be started here."""
    if not _program().is_file():
        return Availability("azure", why_not=f"no {_program()}")
    return Availability("azure", version=f"Azurite {installed.pinned()['AZURITE']}")


@contextlib.contextmanager
def start(folder: Path, port: int | None = None, options: Sequence[str | Path] = ()) -> Iterator[Azure]:
    """Run the emulator on data in `folder`; the same folder and port again is the same one, restarted.

    `options` are more of its command-line options.
    """
    port = port or free_port()
    folder.mkdir(exist_ok=True)
    place: list[str | Path] = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder / "data"]
    # It would refuse the client's links, which are of a newer version of the interface.
    lenient = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    account = f"AZURITE_ACCOUNTS={ACCOUNT}:{KEY}"
    command: list[str | Path] = ["env", account, "node", _program(), *place, *lenient, *options]
    with serving(Program("azurite", command, folder / "azurite.log"), lambda: accepts(port)) as process:
        yield Azure(f"http://127.0.0.1:{port}/{ACCOUNT}", process.pid)


def _program() -> Path:
    folder = installed.cache_folder() / f"azurite-{installed.pinned()['AZURITE']}"
    return folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
