"""Calls S3 from export threads; retries each call and translates its errors."""

import asyncio
import base64
import contextlib
import hashlib
import logging
import random
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import aiohttp
from aiobotocore.credentials import AioRefreshableCredentials  # type: ignore[import-untyped]  # it ships no types
from botocore.exceptions import (  # type: ignore[import-untyped]  # it ships no types
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]  # nor does this
from s3fs import S3FileSystem

from config.errors import Unavailable
from pipeline.storage.s3_body import Body
from pipeline.storage.safe_names import ADVICE
from pipeline.storage.types import Refused
from runtime.network import CERTIFICATE_REMEDIES, explain_fault

logger = logging.getLogger(__name__)

CALL_SECONDS = 30.0
"""The longest time that a blocking call may take, with its retries."""

_NOT_IMPLEMENTED = "NotImplemented"
_SERVER_ERROR = 500
_TOO_MANY = 429
_TEMPORARY_CODES = {
    "BadDigest",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
DENIED = {"AccessDenied", "403", "Forbidden"}
"""The error codes of S3 when the policy does not allow a call."""

_SCOPE = re.compile(r"Credential=[^/]+/\d+/([^/]+)/s3/")
_MD5_METHODS = {"put_object", "upload_part"}
_ACTIONS = {
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "delete_object": "s3:DeleteObject",
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
}
"""The actions that a policy must allow for a call; for all others it is s3:PutObject."""

_NOT_S3 = "is LANGFUSE_S3_BATCH_EXPORT_ENDPOINT the URL of an S3 interface, and not of a web page?"
_STYLE = "or does the store need LANGFUSE_S3_BATCH_EXPORT_FORCE_PATH_STYLE=true?"
_REMEDIES = {
    **dict.fromkeys(
        ("NoSuchBucket", "InvalidBucketName"),
        f"are LANGFUSE_S3_BATCH_EXPORT_BUCKET and the region right, {_STYLE}",
    ),
    "InvalidAccessKeyId": "is LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID right?",
    "SignatureDoesNotMatch": "is LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY right?",
    "AuthorizationHeaderMalformed": "is LANGFUSE_S3_BATCH_EXPORT_REGION right?",
    "PermanentRedirect": "are LANGFUSE_S3_BATCH_EXPORT_REGION and LANGFUSE_S3_BATCH_EXPORT_ENDPOINT right?",
    "301": "are LANGFUSE_S3_BATCH_EXPORT_REGION and LANGFUSE_S3_BATCH_EXPORT_ENDPOINT right?",
    "RequestTimeTooSkewed": "is this machine's clock right?",
    **dict.fromkeys(_EXPIRED, "the credentials have expired, and nothing here can renew them"),
}
_TEMPORARY = (HTTPClientError, BotoConnectionError, ResponseParserError, aiohttp.ClientError, OSError, TimeoutError)


class Calls:
    """The calls to one S3 endpoint: they run on s3fs's own event loop; every other thread may wait for them."""

    def __init__(self, fs: S3FileSystem, pauses: tuple[float, ...]) -> None:
        fs.retries = 1  # this class retries, because it knows which errors are temporary
        self._fs = fs
        self._pauses = pauses
        self._sends_md5 = False

    def limit_retries(self, retries: int) -> "Calls":
        """Return the calls to the same endpoint, of which each is retried less often."""
        return Calls(self._fs, self._pauses[:retries])

    def start(
        self,
        method: str,
        *,
        on_retry: Callable[[], None] = lambda: None,
        pauses: tuple[float, ...] | None = None,
        **params: Any,
    ) -> Future[dict[str, Any]]:
        """Begin a call and return immediately; the future raises Unavailable, or Refused.

        `pauses` replaces the seconds before each retry.
        """
        chosen = self._pauses if pauses is None else pauses
        return asyncio.run_coroutine_threadsafe(self._retry(method, on_retry, chosen, params), self._fs.loop)

    def run(self, method: str, **params: Any) -> dict[str, Any]:
        """Make a call and wait for its response, for CALL_SECONDS at most."""
        return self._wait_for(method, self.start(method, **params))

    def _wait_for(self, method: str, future: Future[dict[str, Any]]) -> dict[str, Any]:
        try:
            return future.result(CALL_SECONDS)
        except FutureTimeout as error:
            future.cancel()
            raise Unavailable(f"S3 did not respond to {method} within {CALL_SECONDS:g} s") from error

    def find_region(self, bucket: str) -> str | None:
        """Return the region for which requests for a bucket are signed once the client has followed its redirects.

        None if the signature names no region. Raises Unavailable if the store does not respond.
        """
        signed_for: list[str] = []
        finding = self._find_region(bucket, signed_for)
        with contextlib.suppress(Refused):
            self._wait_for("head_bucket", asyncio.run_coroutine_threadsafe(finding, self._fs.loop))
        return signed_for[-1] if signed_for else None

    def presign(self, params: dict[str, Any], seconds: int) -> str:
        """Sign a download, for `seconds` or until the credentials expire; nothing is sent to S3."""
        return asyncio.run_coroutine_threadsafe(self._sign(params, seconds), self._fs.loop).result()

    async def _retry(
        self, method: str, on_retry: Callable[[], None], pauses: tuple[float, ...], params: dict[str, Any]
    ) -> dict[str, Any]:
        for pause in pauses:
            try:
                return await self._call(method, params)
            except Exception as error:
                if not (_is_temporary(error) or await self._renew_credentials(error)):
                    raise _translate(method, error, params) from error
            on_retry()
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 (spreads retries, hides nothing)
        try:
            return await self._call(method, params)
        except Exception as error:
            raise _translate(method, error, params) from error

    async def _find_region(self, bucket: str, signed_for: list[str]) -> dict[str, Any]:
        def note(request: Any, **_: object) -> None:
            if scope := _SCOPE.search(str(request.headers.get("Authorization", ""))):
                signed_for.append(scope[1])

        events = (await self._fs.set_session()).meta.events
        # Links are signed for the client's own region, whatever redirects it has followed.
        events.register("before-send.s3.HeadBucket", note)
        try:
            return await self._retry("head_bucket", lambda: None, self._pauses, {"Bucket": bucket})
        finally:
            events.unregister("before-send.s3.HeadBucket", note)

    async def _renew_credentials(self, error: Exception) -> bool:
        """Load expired credentials again; False if they are from the settings, which can't be renewed."""
        if not isinstance(error, ClientError) or _read_code(error) not in _EXPIRED or self._fs.key is not None:
            return False
        await self._fs.set_session(refresh=True)
        return True

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Make a call once, or twice if the store asks for a checksum: then all later calls have one."""
        with_md5 = self._sends_md5
        try:
            return await self._send(method, params, with_md5=with_md5)
        except ClientError as error:
            if with_md5 or method not in _MD5_METHODS or not _asks_for_md5(error):
                raise
        self._sends_md5 = True
        return await self._send(method, params, with_md5=True)

    async def _send(self, method: str, params: dict[str, Any], *, with_md5: bool) -> dict[str, Any]:
        body: Body | None = params.get("Body")
        checksum: dict[str, str] = {}
        if body is not None:
            body.seek(0)
            if with_md5:
                checksum["ContentMD5"] = await asyncio.to_thread(_make_md5, body)
        try:
            answer: dict[str, Any] = await self._fs._call_s3(method, **params, **checksum)  # noqa: SLF001 (s3fs has no public method for a single call)
        except OSError as error:
            if isinstance(error.__cause__, ClientError):  # s3fs replaces it by an errno
                raise error.__cause__ from None
            raise
        return answer

    async def _sign(self, params: dict[str, Any], seconds: int) -> str:
        try:
            client = await self._fs.set_session()
            left = await self._count_seconds_left()
            lifetime = seconds if left is None else max(1, min(seconds, left))
            url: str = await client.generate_presigned_url("get_object", Params=params, ExpiresIn=lifetime)
        except BotoCoreError as error:
            raise _translate("sign", error) from error
        return url

    def have_fixed_session(self) -> bool:
        """Return whether the credentials are a session's that nothing here renews, and that don't say when it ends."""
        return asyncio.run_coroutine_threadsafe(self._have_fixed_session(), self._fs.loop).result()

    async def _have_fixed_session(self) -> bool:
        if self._fs.key is not None:
            return False
        await self._fs.set_session()
        credentials = await self._fs.session.get_credentials()
        renewed = isinstance(credentials, AioRefreshableCredentials)
        return credentials is not None and not renewed and credentials.token is not None

    async def _count_seconds_left(self) -> int | None:
        """Return how long the credentials of a role are valid; None for others, which do not say it."""
        if self._fs.key is not None:
            return None
        credentials = await self._fs.session.get_credentials()
        if not isinstance(credentials, AioRefreshableCredentials):
            return None
        await credentials.get_frozen_credentials()  # loads or renews them
        expiry: datetime = credentials._expiry_time  # noqa: SLF001 (aiobotocore has no public name for it)
        return int((expiry - datetime.now(UTC)).total_seconds())


def _asks_for_md5(error: ClientError) -> bool:
    """Return whether a store refuses an object without a checksum, as a bucket with Object Lock does."""
    return "content-md5" in str(error.response.get("Error", {}).get("Message", "")).lower()


def _make_md5(body: Body) -> str:
    checksum = hashlib.md5(usedforsecurity=False)
    for piece in body.cut():
        checksum.update(piece)
    return base64.b64encode(checksum.digest()).decode()


def _is_temporary(error: Exception) -> bool:
    """Return whether the same call may succeed a moment later."""
    if isinstance(error, ClientError):
        if _read_code(error) == _NOT_IMPLEMENTED:
            return False
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= _SERVER_ERROR or status == _TOO_MANY or _read_code(error) in _TEMPORARY_CODES
    return isinstance(error, _TEMPORARY) and explain_fault(error) not in CERTIFICATE_REMEDIES


def _translate(method: str, error: Exception, params: Mapping[str, Any] = MappingProxyType({})) -> Exception:
    if isinstance(error, ClientError):
        code = _read_code(error)
        reason = error.response.get("Error", {}).get("Message", "").strip() or "no reason is given"
        # Responses without a body have a number instead of a code, and those of other servers may have neither.
        unknown = _NOT_S3 if (not code or code.isdecimal()) and not method.startswith("head_") else None
        shown = code or f"HTTP status {error.response.get('ResponseMetadata', {}).get('HTTPStatusCode')}"
        remedy = _explain_denial(method, params) if code in DENIED else _REMEDIES.get(code, unknown)
        advice = ADVICE.format(f"the store refuses them ({code})") if code in DENIED or code in _REMEDIES else None
        return Refused(
            f"S3 refused {method}: {shown}: {reason}" + (f" ({remedy})" if remedy else ""), code, advice=advice
        )
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return Unavailable(
            "S3 could not be reached: there are no credentials: set LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID and "
            "LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY, or give the process an AWS role"
        )
    if isinstance(error, _TEMPORARY):
        reason = explain_fault(error)
        remedy = CERTIFICATE_REMEDIES.get(reason, f"is LANGFUSE_S3_BATCH_EXPORT_ENDPOINT right, {_STYLE}")
        return Unavailable(f"S3 could not be reached for {method} ({reason}): {remedy}")
    if isinstance(error, BotoCoreError) and not isinstance(error, ParamValidationError):
        return Unavailable(f"S3 could not be reached for {method}: {error or type(error).__name__}")
    return error


def _explain_denial(method: str, params: Mapping[str, Any]) -> str:
    bucket, key = params.get("Bucket", ""), params.get("Key", "")
    action = _ACTIONS.get(method, "s3:PutObject")
    folder = f"/{key.rpartition('/')[0]}/*".replace("//", "/") if key else ""
    remedy = f"the policy of the credentials must allow {action} on arn:aws:s3:::{bucket}{folder}"
    # Without the right to list, a missing object is a denied one.
    return f"{remedy} and s3:ListBucket on arn:aws:s3:::{bucket}" if method == "head_object" else remedy


def _read_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
