"""An emulator of Google Cloud Storage: fake-gcs-server behind a front, with a new bucket for whoever asks."""

import contextlib
import json
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.services import installed
from tests.services.gcs_front import OPEN_UPLOADS, TOKEN, GcsFront
from tests.services.installed import Availability
from tests.services.process import Program, accepts, free_port, serving
from tests.support.http_proxy import http_proxy

EMAIL = "waybill@test.iam.gserviceaccount.com"


@dataclass(frozen=True)
class GcsBucket:
    """One bucket of a running emulator, seen by a client that is not the product's."""

    endpoint: str
    name: str
    credentials: str = field(repr=False)

    def environment(self) -> dict[str, str]:
        """The settings that point Waybill here."""
        return {
            "LANGFUSE_USE_GOOGLE_CLOUD_STORAGE": "true",
            "LANGFUSE_S3_BATCH_EXPORT_BUCKET": self.name,
            "LANGFUSE_S3_BATCH_EXPORT_ENDPOINT": self.endpoint,
            "LANGFUSE_GOOGLE_CLOUD_STORAGE_CREDENTIALS": self.credentials,
        }

    def describe(self, key: str) -> dict[str, Any]:
        """The properties of an object."""
        found: dict[str, Any] = json.loads(self._ask("GET", f"/storage/v1/b/{self.name}/o/{quote(key, safe='')}"))
        return found

    def objects(self) -> dict[str, int]:
        """The bytes of every object by name."""
        found = json.loads(self._ask("GET", f"/storage/v1/b/{self.name}/o?maxResults=100000"))
        return {item["name"]: int(item["size"]) for item in found.get("items") or ()}

    def uploads(self) -> list[str]:
        """The names of the uploads that were neither completed nor cancelled."""
        found: list[str] = json.loads(self._ask("GET", f"{OPEN_UPLOADS}{self.name}"))
        return found

    def read(self, key: str) -> bytes:
        """The content of an object."""
        return self._ask("GET", f"/storage/v1/b/{self.name}/o/{quote(key, safe='')}?alt=media")

    def create(self) -> None:
        """Create the bucket."""
        self._ask("POST", "/storage/v1/b", json.dumps({"name": self.name}).encode())

    def remove(self) -> None:
        """Delete the bucket and all that is in it."""
        for key in self.objects():
            self._ask("DELETE", f"/storage/v1/b/{self.name}/o/{quote(key, safe='')}")
        self._ask("DELETE", f"/storage/v1/b/{self.name}")

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.endpoint}{path}", body, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            content: bytes = answer.read()
        return content


@dataclass(frozen=True)
class Gcs:
    """A running emulator; `direct` is its address without the front, where no token is checked."""

    endpoint: str
    direct: str
    credentials: str = field(repr=False)
    pid: int

    @contextlib.contextmanager
    def bucket(self) -> Iterator[GcsBucket]:
        """A new bucket, deleted at the end with all that is in it."""
        bucket = GcsBucket(self.endpoint, f"test-{uuid.uuid4().hex[:12]}", self.credentials)
        bucket.create()
        try:
            yield bucket
        finally:
            bucket.remove()


def available() -> Availability:
    """Whether the emulator can be started here."""
    if not _program().is_file():
        return Availability("gcs", why_not=f"no {_program()}")
    return Availability("gcs", version=f"fake-gcs-server {installed.pinned()['FAKE_GCS_SERVER']}")


@contextlib.contextmanager
def start(folder: Path, port: int = 0) -> Iterator[Gcs]:
    """Run the emulator on data in `folder`; the same folder and port again is the same one, restarted.

    An unfinished upload does not survive a restart.
    """
    folder.mkdir(exist_ok=True)
    key, inner = _load_key(folder / "key.pem"), free_port()
    place = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(inner), "-public-host", "127.0.0.1"]
    data: list[str | Path] = ["-backend", "filesystem", "-filesystem-root", folder / "data", "-log-level", "error"]
    front = GcsFront("", upstream=f"127.0.0.1:{inner}", key=key.public_key())
    command: list[str | Path] = [_program(), *place, *data]
    with (
        serving(Program("fake-gcs-server", command, folder / "gcs.log"), lambda: accepts(inner)) as process,
        http_proxy(front.upstream, port=port, proxy=front) as running,
    ):
        yield Gcs(running.url, f"http://127.0.0.1:{inner}", make_credentials(key, running.url), process.pid)


def make_credentials(key: rsa.RSAPrivateKey, endpoint: str) -> str:
    """Return the JSON of a service account's key whose tokens are issued at an endpoint."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "test",
            "private_key_id": "1",
            "private_key": pem,
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": f"{endpoint}/token",
        }
    )


def make_key() -> rsa.RSAPrivateKey:
    """Return a new key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _load_key(file: Path) -> rsa.RSAPrivateKey:
    if not file.exists():
        file.write_bytes(make_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = load_pem_private_key(file.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _program() -> Path:
    return installed.cache_folder() / f"fake-gcs-server-{installed.pinned()['FAKE_GCS_SERVER']}"
