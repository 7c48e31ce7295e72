"""An S3 server: versitygw on a temporary folder, with a new bucket for whoever asks."""

import contextlib
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]  # it ships no types
from botocore.config import Config  # type: ignore[import-untyped]  # nor does this

from tests.services import installed
from tests.services.installed import Availability
from tests.services.process import Program, accepts, free_port, serving
from tests.support.certificates import Authority

_ACCESS_KEY = "waybill-access"
_SECRET_KEY = "waybill-secret"
_REGION = "us-east-1"


@dataclass(frozen=True)
class Bucket:
    """One bucket of a running server, seen by a client that is not the product's."""

    endpoint: str
    name: str
    authority: Path | None = None
    """The file with the authority that signed the server's certificate."""

    def environment(self) -> dict[str, str]:
        """The settings that point Waybill here."""
        return {
            "LANGFUSE_S3_BATCH_EXPORT_BUCKET": self.name,
            "LANGFUSE_S3_BATCH_EXPORT_ENDPOINT": self.endpoint,
            "LANGFUSE_S3_BATCH_EXPORT_REGION": _REGION,
            "LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID": _ACCESS_KEY,
            "LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY": _SECRET_KEY,
            "LANGFUSE_S3_BATCH_EXPORT_FORCE_PATH_STYLE": "true",
        }

    def options(self) -> dict[str, Any]:
        """The keyword arguments with which `s3fs.S3FileSystem` reaches the server."""
        return {
            "key": _ACCESS_KEY,
            "secret": _SECRET_KEY,
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": _REGION},
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        }

    @cached_property
    def client(self) -> Any:
        """A boto3 client of the server."""
        return _client(self.endpoint, self.authority)

    def objects(self) -> dict[str, int]:
        """The bytes of every object by key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}

    def uploads(self) -> list[str]:
        """The keys of the multipart uploads that are neither completed nor aborted."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.name)
        return [item["Key"] for page in pages for item in page.get("Uploads", ())]

    def read(self, key: str) -> bytes:
        """The content of an object."""
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def remove(self) -> None:
        """Delete the bucket and all that is in it."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.name)
        for upload in [item for page in pages for item in page.get("Uploads", ())]:
            self.client.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])
        for key in self.objects():
            self.client.delete_object(Bucket=self.name, Key=key)
        self.client.delete_bucket(Bucket=self.name)


@dataclass(frozen=True)
class S3:
    """A running server."""

    endpoint: str
    pid: int
    authority: Path | None = None

    @contextlib.contextmanager
    def bucket(self) -> Iterator[Bucket]:
        """A new bucket, deleted at the end with all that is in it."""
        bucket = Bucket(self.endpoint, f"test-{uuid.uuid4().hex[:12]}", self.authority)
        bucket.client.create_bucket(Bucket=bucket.name)
        try:
            yield bucket
        finally:
            bucket.remove()

    def create_user(self, access: str, secret: str) -> None:
        """Create a user without rights; the server must have been started with `--iam-dir`."""
        command: list[str | Path] = [
            *(_program(), "admin", "--access", _ACCESS_KEY, "--secret", _SECRET_KEY, "--endpoint-url", self.endpoint),
            *("--allow-insecure", "create-user", "--access", access, "--secret", secret, "--role", "user"),
        ]
        subprocess.run(command, check=True, capture_output=True)


def available() -> Availability:
    """Whether the server can be started here."""
    if not _program().is_file():
        return Availability("s3", why_not=f"no {_program()}")
    return Availability("s3", version=f"versitygw {installed.pinned()['VERSITYGW']}")


@contextlib.contextmanager
def start(
    folder: Path, port: int | None = None, options: Sequence[str | Path] = (), authority: Authority | None = None
) -> Iterator[S3]:
    """Run a server on data in `folder`; the same folder and port again is the same server, restarted.

    `options` are more of its command-line options. With an authority, it uses TLS.
    """
    port = port or free_port()
    data, sidecar = folder / "data", folder / "metadata"
    for path in (folder, data, sidecar):
        path.mkdir(exist_ok=True)
    address = f"127.0.0.1:{port}"
    keys = ["--access", _ACCESS_KEY, "--secret", _SECRET_KEY, "--region", _REGION]
    tls: list[str | Path] = ["--cert", authority.certificate, "--key", authority.key] if authority is not None else []
    # A sidecar folder for the metadata: not every file system has the extended attributes it would use.
    command: list[str | Path] = [
        _program(),
        "--port",
        address,
        "--quiet",
        "--keep-alive",  # as S3 itself does
        *keys,
        *tls,
        *options,
        "posix",
        "--sidecar",
        sidecar,
        data,
    ]
    # Its client logs each refused connection at length: ask for the port alone.
    with serving(Program("versitygw", command, folder / "s3.log"), lambda: accepts(port)) as process:
        scheme, trusted = ("http", None) if authority is None else ("https", authority.file)
        yield S3(f"{scheme}://{address}", process.pid, trusted)


def _program() -> Path:
    return installed.cache_folder() / f"versitygw-{installed.pinned()['VERSITYGW']}"


def _client(endpoint: str, authority: Path | None) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=_REGION,
        aws_access_key_id=_ACCESS_KEY,
        aws_secret_access_key=_SECRET_KEY,
        verify=None if authority is None else str(authority),
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}),
    )
