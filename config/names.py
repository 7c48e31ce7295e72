"""Checks names of hosts, brokers, buckets and regions: clients would report wrong ones later, or not at all."""

import re

_LABEL = r"[\w-]{1,63}"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(%[\w.%-]+)?")
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@]+)(:(?P<port>\d{1,5}))?")
_BUCKET = re.compile(r"[\w.-]+|arn:\S+")
_REGION = re.compile(r"[A-Za-z0-9-]{1,63}")
LAST_PORT = 65_535


def is_host(value: str) -> bool:
    """Return whether a text can be the name or the address of a host; an IPv6 address has no brackets here."""
    return bool(_HOST.fullmatch(value) or (":" in value and _ADDRESS.fullmatch(value)))


def read_brokers(value: str) -> str:
    """Return brokers that are separated by commas, without spaces; raises ValueError for any that is not valid."""
    brokers = [each.strip() for each in value.split(",") if each.strip()]
    if not brokers:
        raise ValueError("names no broker: use host:9092, and commas between several")
    for each in brokers:
        match = _BROKER.fullmatch(each)
        port = int(match["port"] or 9092) if match else 0
        if match is None or not is_host(match[1].strip("[]")) or not 1 <= port <= LAST_PORT:
            raise ValueError(f"{each!r} is not a broker: use host:9092 without a scheme, and commas between several")
    return ",".join(brokers)


def read_bucket(value: str) -> str:
    """Return the name of a bucket, or the ARN of an access point; raises ValueError for any other text."""
    if not _BUCKET.fullmatch(value):
        raise ValueError(
            "must be the name of a bucket alone, without s3:// and without a path: "
            "folders in it are set by LANGFUSE_S3_BATCH_EXPORT_PREFIX"
        )
    return value


def read_prefix(value: str) -> str:
    """Return the prefix of object keys; raises ValueError for one that would leave the folder of the files."""
    if {".", ".."} & set(value.split("/")) or "\\" in value or "\0" in value:
        raise ValueError("must not have the parts `.` and `..`, nor a backslash: use a prefix such as exports/")
    return value


def read_region(value: str) -> str:
    """Return the name of a region; raises ValueError for a text that can't be one."""
    if not _REGION.fullmatch(value):
        raise ValueError(f"{value!r} is not the name of a region: use one such as eu-central-1")
    return value
