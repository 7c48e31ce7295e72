"""The stores under test, and access to their content that does not use the product."""

import contextlib
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.storage import AzureOptions, GoogleOptions, PartOptions, S3Options, Storage, open_storage
from tests import moto_server
from tests.contract import store_fakes
from tests.contract.store_fakes import Fake, faked
from tests.services import azure
from tests.services.azure import Container
from tests.services.gcs import GcsBucket
from tests.services.s3 import Bucket

PART = 5 << 20
KEY = "exports/1700000000000-e1-lf-traces-export-p1.csv"


@dataclass(frozen=True)
class Store:
    """A store under test; the functions read its content without the product."""

    storage: Storage
    objects: Callable[[], dict[str, int]]
    partial_files: Callable[[], list[str]]
    read: Callable[[str], bytes]


def s3_options(bucket: Bucket) -> S3Options:
    client = bucket.options()
    return S3Options(
        endpoint=bucket.endpoint,
        region=client["client_kwargs"]["region_name"],
        access_key_id=client["key"],
        secret_access_key=client["secret"],
        force_path_style=True,
        part_size=PART,
    )


FAKES: dict[str, Fake] = {
    "r2": store_fakes.r2,
    "no-conditions": store_fakes.refusing_conditions(501, "NotImplemented"),
    "bad-conditions": store_fakes.refusing_conditions(400, "InvalidArgument"),
    "wrong-answers": store_fakes.refusing_conditions(412, "PreconditionFailed"),
    "no-metadata": store_fakes.dropping_metadata,
    "object-lock": store_fakes.object_lock,
    "prefix-policy": store_fakes.prefix_policy("exports/"),
    "no-listing": store_fakes.no_listing,
}
"""Stores that refuse something, in front of a real server."""

UNSIGNED_FAKES: dict[str, Fake] = {"ignored-conditions": store_fakes.ignoring_conditions}
"""Stores whose proxy changes requests, in front of a server that checks no signatures."""

VIRTUAL_DOMAIN = "s3.test"
"""The domain below which the real server has a name for each bucket."""


def s3_store(bucket: Bucket, root: str = "", **changed: Any) -> Store:
    """The store of a bucket, below a root; `changed` are other options."""
    storage = open_storage(f"s3://{bucket.name}/{root}", replace(s3_options(bucket), **changed))
    return Store(
        storage,
        lambda: {key.removeprefix(f"{root}/"): size for key, size in bucket.objects().items()},
        bucket.uploads,
        lambda key: bucket.read(f"{root}/{key}" if root else key),
    )


@contextlib.contextmanager
def fake_store(bucket: Bucket, name: str) -> Iterator[Store]:
    """A fake in front of a bucket."""
    with faked(bucket.endpoint, bucket.name, (FAKES | UNSIGNED_FAKES)[name]) as proxy:
        yield s3_store(bucket, "exports" if name == "prefix-policy" else "", endpoint=proxy.url)


@contextlib.contextmanager
def unsigned_fake_store(name: str) -> Iterator[Store]:
    """A fake in front of a server that checks no signatures."""
    with moto_server.running() as moto, fake_store(moto.bucket, name) as store:
        yield store


@contextlib.contextmanager
def virtual_store(bucket: Bucket) -> Iterator[Store]:
    """A fake that refuses addresses with the bucket in the path, in front of a bucket with a name of its own."""
    with faked(bucket.endpoint, bucket.name, store_fakes.virtual_hosts) as proxy, resolving(VIRTUAL_DOMAIN):
        endpoint = proxy.url.replace("127.0.0.1", VIRTUAL_DOMAIN)
        yield s3_store(bucket, endpoint=endpoint, force_path_style=False)


@contextlib.contextmanager
def resolving(domain: str) -> Iterator[None]:
    """Resolve a domain and the names below it to this machine."""
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *args: Any, **options: Any) -> Any:
        here = isinstance(host, str) and f".{host}".endswith(f".{domain}")
        return resolve("127.0.0.1" if here else host, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve_here)
        yield


def azure_options(container: Container, **changed: Any) -> AzureOptions:
    options = AzureOptions(
        endpoint=container.endpoint, account=azure.ACCOUNT, key=azure.KEY, parts=PartOptions(size=PART)
    )
    return replace(options, **changed)


def azure_store(container: Container, root: str = "", **changed: Any) -> Store:
    """The store of a container, below a root; `changed` are other options."""
    storage = open_storage(f"abfs://{container.name}/{root}", azure_options(container, **changed))
    return Store(
        storage,
        lambda: {key.removeprefix(f"{root}/"): size for key, size in container.objects().items()},
        container.uploads,
        lambda key: container.read(f"{root}/{key}" if root else key),
    )


def gcs_options(bucket: GcsBucket, **changed: Any) -> GoogleOptions:
    options = GoogleOptions(endpoint=bucket.endpoint, credentials=bucket.credentials, parts=PartOptions(size=PART))
    return replace(options, **changed)


def gcs_store(bucket: GcsBucket, root: str = "", **changed: Any) -> Store:
    """The store of a bucket of Google's emulator, below a root; `changed` are other options."""
    storage = open_storage(f"gs://{bucket.name}/{root}", gcs_options(bucket, **changed))
    return Store(
        storage,
        lambda: {key.removeprefix(f"{root}/"): size for key, size in bucket.objects().items()},
        bucket.uploads,
        lambda key: bucket.read(f"{root}/{key}" if root else key),
    )


def folder_store(root: Path) -> Store:
    def files(*, hidden: bool) -> dict[str, int]:
        paths = [path for path in root.rglob("*") if path.is_file() and path.name.startswith(".") is hidden]
        return {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}

    return Store(
        open_storage(root.as_uri(), S3Options()),
        lambda: files(hidden=False),
        lambda: list(files(hidden=True)),
        lambda key: (root / key).read_bytes(),
    )


def memory_store(name: str) -> Store:
    fs = fsspec.filesystem("memory")

    def files(*, hidden: bool) -> dict[str, int]:
        found = {
            path.removeprefix(f"/{name}/"): info["size"] for path, info in fs.find(f"/{name}", detail=True).items()
        }
        return {path: size for path, size in found.items() if path.rpartition("/")[2].startswith(".") is hidden}

    return Store(
        open_storage(f"memory://{name}", S3Options()),
        lambda: files(hidden=False),
        lambda: list(files(hidden=True)),
        lambda key: bytes(fs.cat_file(f"/{name}/{key}")),
    )


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def pieces(data: bytes, size: int) -> Iterator[bytes | memoryview]:
    view = memoryview(data)
    for start in range(0, len(data), size):
        piece = view[start : start + size]
        yield bytes(piece) if start % 2 else piece


def upload_file(storage: Storage, data: bytes, attempt: int = 1, piece: int = 1_000_003, key: str = KEY) -> int:
    with storage.open(key, "text/csv", attempt) as upload:
        for part in pieces(data, piece):
            upload.write(part)
        return upload.finish()
