"""Opens the client of Azure Blob Storage, and translates its errors."""

import base64
import re
from http import HTTPStatus
from typing import Any

import requests
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient
from requests.adapters import HTTPAdapter

from config.errors import Unavailable
from pipeline.storage.calls import CONNECT_SECONDS, READ_SECONDS, Fault, find_authorities
from pipeline.storage.options import AzureOptions
from pipeline.storage.safe_names import ADVICE
from pipeline.storage.types import Refused
from runtime.network import CERTIFICATE_REMEDIES, explain_fault

API_VERSION = "2021-12-02"
"""The oldest version of the interface with all that is used here: emulators and Azure Stack lag behind the client's."""

MISSING = {"BlobNotFound", "404"}
"""The error codes of Azure when there is no blob; a missing container is something else."""

OVERTAKEN = {"ConditionNotMet", "BlobAlreadyExists", "TargetConditionNotMet", "412"}
"""The error codes of Azure when another blob has replaced the one that the call was made for."""

LOST_BLOCKS = {"InvalidBlockList", "InvalidBlobOrBlock"}
"""The error codes of Azure when blocks are gone: another upload of the same blob was completed."""

_CONNECTIONS = 64
_NAME = re.compile(r"[A-Za-z0-9-]{1,63}")
_ID = "x-ms-request-id"
_SERVER_ERROR = 500
_TEMPORARY_STATUS = {408, 429}
_ACCOUNT, _KEY = "LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID", "LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY"
_ENDPOINT = "LANGFUSE_S3_BATCH_EXPORT_ENDPOINT"
_ROLE = "the identity needs the role Storage Blob Data Contributor on the account"
_REMEDIES = {
    "ContainerNotFound": (
        "is LANGFUSE_S3_BATCH_EXPORT_BUCKET a container of the account? "
        "LANGFUSE_AZURE_SKIP_CONTAINER_CHECK=false creates it"
    ),
    "ContainerBeingDeleted": "the container is being deleted",
    "ContainerDisabled": "the container was disabled",
    "InvalidResourceName": "is LANGFUSE_S3_BATCH_EXPORT_BUCKET the name of a container?",
    "AuthenticationFailed": f"are {_ACCOUNT} (the account) and {_KEY} (its key) right, and this machine's clock?",
    "InvalidAuthenticationInfo": f"are {_ACCOUNT} (the account) and {_KEY} (its key) right?",
    "NoAuthenticationInformation": f"set {_ACCOUNT} and {_KEY}, or give the process an Azure identity",
    "KeyBasedAuthenticationNotPermitted": (
        f"the account allows no keys: remove {_KEY}, and give the process an Azure identity"
    ),
    "AuthorizationFailure": (
        f"are {_ACCOUNT} (the account) and {_KEY} (its key) right, and does the account's firewall allow this network?"
    ),
    "404": f"is {_ENDPOINT} right?",
    "ResourceNotFound": f"are {_ACCOUNT} (the account) and {_ENDPOINT} right?",
    "AuthorizationPermissionMismatch": _ROLE,
    "InsufficientAccountPermissions": _ROLE,
    "AccountIsDisabled": "the account is disabled",
    "403": _ROLE,
}


class Foreign(Exception):
    """A response that Azure does not send: another kind of server answered."""


def open_client(options: AzureOptions) -> BlobServiceClient:
    """Return the client of an account; raises ValueError for options that are not valid."""
    endpoint = find_endpoint(options)
    session = requests.Session()
    session.hooks["response"] = [_check_origin]
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
    return BlobServiceClient(
        endpoint,
        credential=_make_credential(options, endpoint),
        api_version=API_VERSION,
        retry_total=0,  # Calls retries
        transport=RequestsTransport(
            session=session,
            connection_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            connection_verify=find_authorities() or True,
        ),
    )


def _check_origin(response: requests.Response, **_: Any) -> None:
    """Raise Foreign for a response that is no error and not Azure's: the client would raise anything, or nothing."""
    is_azure = _ID in response.headers or "azur" in response.headers.get("Server", "").lower()
    if response.status_code < HTTPStatus.BAD_REQUEST and not is_azure:
        response.close()
        raise Foreign(f"HTTP status {response.status_code}")


def _make_credential(options: AzureOptions, endpoint: str) -> dict[str, str] | DefaultAzureCredential:
    if options.key is None:
        if endpoint.startswith("https://"):
            return DefaultAzureCredential()
        raise ValueError(f"{_ENDPOINT}: must start with https:// unless {_KEY} is set: tokens are not sent without TLS")
    if options.account is None:
        raise ValueError(f"{_ACCOUNT} is missing: for Azure it is the name of the account that {_KEY} is a key of")
    try:
        base64.b64decode(options.key, validate=True)
    except ValueError:
        raise ValueError(f"{_KEY}: is not the key of an Azure account, which is Base64 text") from None
    return {"account_name": options.account, "account_key": options.key}


def find_endpoint(options: AzureOptions) -> str:
    """Return the URL of the account."""
    if options.endpoint is not None:
        return options.endpoint
    if options.account is None:
        raise ValueError(f"{_ACCOUNT} is missing: for Azure it is the name of the account (or set {_ENDPOINT})")
    if not _NAME.fullmatch(options.account):
        raise ValueError(f"{_ACCOUNT}: is not the name of an Azure account, such as mycompany (or set {_ENDPOINT})")
    return f"https://{options.account}.blob.core.windows.net"


def translate(name: str, error: Exception) -> Fault:
    """Say what an error of the client means for the caller of `name`."""
    if isinstance(error, HttpResponseError) and error.response is not None and error.status_code is not None:
        temporary = error.status_code >= _SERVER_ERROR or error.status_code in _TEMPORARY_STATUS
        return Fault(_explain_refusal(name, error), temporary)
    if isinstance(error, Foreign):
        text = f"the server that was asked for {name} is not Azure Blob Storage ({error}): is {_ENDPOINT} right?"
        return Fault(Unavailable(text), temporary=False)
    if isinstance(error, ClientAuthenticationError):
        return Fault(
            Unavailable(
                f"Azure could not be reached: there are no credentials: set {_ACCOUNT} and {_KEY}, "
                "or give the process an Azure identity (workload identity, managed identity, AZURE_CLIENT_ID …)"
            ),
            temporary=False,
        )
    if isinstance(error, AzureError | OSError):
        # The client hides what it was raised from.
        reason = explain_fault(getattr(error, "inner_exception", None) or error)
        remedy = CERTIFICATE_REMEDIES.get(reason, f"is {_ENDPOINT} right?")
        return Fault(Unavailable(f"Azure could not be reached for {name} ({reason}): {remedy}"), temporary=True)
    return Fault(error, temporary=False)


def _explain_refusal(name: str, error: HttpResponseError) -> Refused:
    given = getattr(error, "error_code", None) or error.status_code
    code = str(getattr(given, "value", given))  # the client knows some codes by an enum
    remedy = _REMEDIES.get(code)
    advice = ADVICE.format(f"the store refuses them ({code})") if remedy else None
    reason = (error.reason or "no reason is given").strip()
    return Refused(f"Azure refused {name}: {code}: {reason}" + (f" ({remedy})" if remedy else ""), code, advice=advice)
