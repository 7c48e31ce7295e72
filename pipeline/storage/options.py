"""Declares how to reach the stores of clouds; their libraries are imported only when they are used."""

from dataclasses import dataclass, field

S3_SCHEMES = ("s3", "s3a")
AZURE_SCHEMES = ("abfs", "abfss", "az")
GOOGLE_SCHEMES = ("gs", "gcs")


@dataclass(frozen=True, kw_only=True)
class S3Options:
    """How to reach a bucket; None means the environment and the defaults of the AWS client.

    `external_endpoint` is used in links. `part_size` (bytes) is the size of an upload's first parts, if a larger one
    is not needed. `pauses` are the seconds, ±50 %, before each retry of a call that failed temporarily;
    `part_attempts` is how often a part is sent, None for as often as any call.
    """

    endpoint: str | None = None
    external_endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    force_path_style: bool = False
    sse: str | None = None
    sse_kms_key_id: str | None = None
    part_size: int = 10 << 20
    parts_in_flight: int = 2
    part_attempts: int | None = None
    pauses: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

    @property
    def part_pauses(self) -> tuple[float, ...]:
        """The seconds before each retry of a part; the last of `pauses` is repeated."""
        if self.part_attempts is None:
            return self.pauses
        retries = self.part_attempts - 1
        return (self.pauses + self.pauses[-1:] * retries)[:retries]


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """How a file is sent: parts of `size` bytes, of which `in_flight` are sent at the same time.

    `pauses` are the seconds, ±50 %, before each retry of a call that failed temporarily; `attempts` is how often a
    part is sent, None for as often as any call.
    """

    size: int = 10 << 20
    in_flight: int = 2
    attempts: int | None = None
    pauses: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

    @property
    def part_pauses(self) -> tuple[float, ...]:
        """The seconds before each retry of a part; the last of `pauses` is repeated."""
        if self.attempts is None:
            return self.pauses
        retries = self.attempts - 1
        return (self.pauses + self.pauses[-1:] * retries)[:retries]


@dataclass(frozen=True, kw_only=True)
class AzureOptions:
    """How to reach a container; without a `key`, the default credentials of the environment are used.

    Without an `endpoint`, it is that of the `account` in Azure's public cloud. `external_endpoint` is used in links.
    `create_container` creates the container if it is missing.
    """

    endpoint: str | None = None
    external_endpoint: str | None = None
    account: str | None = None
    key: str | None = field(default=None, repr=False)
    create_container: bool = False
    parts: PartOptions = PartOptions()


@dataclass(frozen=True, kw_only=True)
class GoogleOptions:
    """How to reach a bucket of Google Cloud Storage; `credentials` are JSON, or the path of a file with it.

    Without `credentials`, the default ones of the environment are used; without an `endpoint`, Google's own.
    `external_endpoint` is used in links.
    """

    endpoint: str | None = None
    external_endpoint: str | None = None
    credentials: str | None = field(default=None, repr=False)
    parts: PartOptions = PartOptions()
