"""The stores under test, and access to their content that does not use the product."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec

from pipeline.storage import S3Options, Storage, open_storage
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


def s3_store(bucket: Bucket) -> Store:
    storage = open_storage(f"s3://{bucket.name}", s3_options(bucket))
    return Store(storage, bucket.objects, bucket.uploads, bucket.read)


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
