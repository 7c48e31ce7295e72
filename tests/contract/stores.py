"""The stores under test: how to open each, and an independent look into it."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec

from pipeline.storage import S3Options, Storage, open_storage
from tests.services.s3 import Bucket

PART = 5 << 20
KEY = "exports/1700000000000-lf-traces-export-p1-e1.csv"


@dataclass(frozen=True)
class Place:
    """A store under test, and an independent look into it."""

    storage: Storage
    objects: Callable[[], dict[str, int]]
    leftovers: Callable[[], list[str]]
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


def s3_place(bucket: Bucket) -> Place:
    storage = open_storage(f"s3://{bucket.name}", s3_options(bucket))
    return Place(storage, bucket.objects, bucket.uploads, bucket.read)


def folder_place(root: Path) -> Place:
    def files(*, hidden: bool) -> dict[str, int]:
        paths = [path for path in root.rglob("*") if path.is_file() and path.name.startswith(".") is hidden]
        return {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}

    return Place(
        open_storage(root.as_uri(), S3Options()),
        lambda: files(hidden=False),
        lambda: list(files(hidden=True)),
        lambda key: (root / key).read_bytes(),
    )


def memory_place(name: str) -> Place:
    fs = fsspec.filesystem("memory")

    def files(*, hidden: bool) -> dict[str, int]:
        found = {
            path.removeprefix(f"/{name}/"): info["size"] for path, info in fs.find(f"/{name}", detail=True).items()
        }
        return {path: size for path, size in found.items() if path.rpartition("/")[2].startswith(".") is hidden}

    return Place(
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


def store(storage: Storage, data: bytes, attempt: int = 1, piece: int = 1_000_003, key: str = KEY) -> int:
    with storage.open(key, "text/csv", attempt) as upload:
        for part in pieces(data, piece):
            upload.write(part)
        return upload.finish()
