"""Chooses the store by Langfuse's switches, and finds settings of stores that contradict each other."""

from collections.abc import Iterator, Mapping
from typing import Literal

AZURE = "LANGFUSE_USE_AZURE_BLOB"
GOOGLE = "LANGFUSE_USE_GOOGLE_CLOUD_STORAGE"
STORAGE_URL = "WAYBILL_STORAGE_URL"

Switch = Literal["true", "false"]


def refuse_oci(value: Switch) -> Switch:
    """Return the value of Langfuse's switch for OCI unless it is on; raises ValueError with the alternative."""
    if value == "true":
        raise ValueError(
            "OCI's native API is not supported, but its S3-compatible API is: remove this variable, and set "
            "LANGFUSE_S3_BATCH_EXPORT_ENDPOINT to https://NAMESPACE.compat.objectstorage.REGION.oraclecloud.com, "
            "LANGFUSE_S3_BATCH_EXPORT_REGION, LANGFUSE_S3_BATCH_EXPORT_FORCE_PATH_STYLE=true, and "
            "LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID and LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY to a customer "
            "secret key"
        )
    return value


def name_bucket(bucket: str, *, azure: bool, google: bool) -> str:
    """Return the URL of a bucket, or of a container, in the store of the switches."""
    return f"{'abfs' if azure else 'gs' if google else 's3'}://{bucket}"


def find_contradictions(given: Mapping[str, str]) -> Iterator[str]:
    """Yield one sentence for each pair of settings that exclude each other."""
    azure, google = (given.get(name) == "true" for name in (AZURE, GOOGLE))
    if azure and google:
        yield f"{AZURE} and {GOOGLE} are both true: set only the one for the store that has the bucket"
    for name, is_on in ((AZURE, azure), (GOOGLE, google)):
        if is_on and given.get(STORAGE_URL):
            yield f"{name} and {STORAGE_URL} are both set: the files can be in one store only, so remove one of them"
