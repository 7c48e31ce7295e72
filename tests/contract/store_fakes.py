"""Proxies in front of an S3 server that refuse what other stores refuse."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http_proxy import Forward, HttpProxy, Request, Response, http_proxy
from tests.support.responses import refuse, reply

CONDITIONS = {"if-match", "if-none-match"}
CHECKSUMS = ("x-amz-checksum-", "x-amz-sdk-checksum-", "x-amz-trailer")

Fake = Callable[[HttpProxy, str], None]
"""Adds the rules of a store to a proxy in front of a bucket."""


@contextlib.contextmanager
def faked(endpoint: str, bucket: str, fake: Fake) -> Iterator[HttpProxy]:
    """Run a proxy in front of a server with the rules of another store."""
    with http_proxy(endpoint) as proxy:
        fake(proxy, bucket)
        yield proxy


def r2(proxy: HttpProxy, _: str) -> None:
    """Complete an upload only if all parts but the last have the same size."""
    sizes: dict[str, dict[int, int]] = {}

    def has_uneven_parts(request: Request) -> bool:
        query = read_query(request)
        upload = query.get("uploadId", "")
        if request.method == "PUT" and "partNumber" in query:
            sizes.setdefault(upload, {})[int(query["partNumber"])] = len(request.body)
        parts = [size for _, size in sorted(sizes.get(upload, {}).items())]
        even = len(set(parts[:-1])) <= 1 and parts[-1:] <= parts[:1]
        return request.method == "POST" and bool(upload) and not even

    proxy.add(has_uneven_parts, refuse(400, "InvalidPart"))


def refusing_conditions(status: int, code: str) -> Fake:
    """Refuse every write with a condition, and checksums that AWS clients send by default."""

    def fake(proxy: HttpProxy, _: str) -> None:
        proxy.add(_has_checksum, refuse(412, "PreconditionFailed"))
        proxy.add(lambda request: request.method != "GET" and has_condition(request), refuse(status, code))

    return fake


def ignoring_conditions(proxy: HttpProxy, _: str) -> None:
    """Write whatever the condition."""

    def strip(request: Request) -> Request:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in CONDITIONS}
        return replace(request, headers=headers)

    proxy.change = strip


def dropping_metadata(proxy: HttpProxy, _: str) -> None:
    """Show objects without the metadata that they were stored with."""

    def forget(forward: Forward) -> Response:
        response = forward()
        kept = {name: value for name, value in response.headers.items() if not name.lower().startswith("x-amz-meta-")}
        return replace(response, headers=kept)

    proxy.add(lambda request: request.method in {"GET", "HEAD"}, forget)


def object_lock(proxy: HttpProxy, _: str) -> None:
    """Refuse objects and parts without Content-MD5, in the words of AWS."""
    text = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
    body = f"<?xml version='1.0'?><Error><Code>InvalidRequest</Code><Message>{text}</Message></Error>".encode()
    proxy.add(lambda request: request.method == "PUT" and not _has_header(request, "content-md5"), reply(400, body))


def prefix_policy(prefix: str) -> Fake:
    """Deny whatever is not under the prefix, also in listings."""

    def fake(proxy: HttpProxy, bucket: str) -> None:
        def is_outside(request: Request) -> bool:
            key = unquote(urlsplit(request.path).path).removeprefix(f"/{bucket}").removeprefix("/")
            return not (key or read_query(request).get("prefix", "")).startswith(prefix)

        proxy.add(is_outside, refuse(403, "AccessDenied"))

    return fake


def no_listing(proxy: HttpProxy, bucket: str) -> None:
    """Answer 403 for a missing object, as AWS does without s3:ListBucket, and to listings of objects."""

    def deny_missing(forward: Forward) -> Response:
        response = forward()
        return Response(403, response.headers, iter(())) if response.status == 404 else response

    proxy.add(lambda request: request.method == "HEAD", deny_missing)
    proxy.add(
        lambda request: urlsplit(request.path).path.strip("/") == bucket and request.method == "HEAD",
        refuse(403, "AccessDenied"),
    )


def virtual_hosts(proxy: HttpProxy, bucket: str) -> None:
    """Refuse addresses with the bucket in the path."""
    proxy.add(
        lambda request: not request.headers.get("Host", "").startswith(f"{bucket}."),
        refuse(403, "SecondLevelDomainForbidden"),
    )


def in_region(region: str) -> Fake:
    """Answer requests that are signed for another region as AWS does: with the bucket's region."""
    headers = {"x-amz-bucket-region": region, "Content-Type": "application/xml"}
    body = (
        "<?xml version='1.0'?><Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong region</Message>"
        f"<Region>{region}</Region></Error>"
    ).encode()

    def fake(proxy: HttpProxy, _: str) -> None:
        def is_elsewhere(request: Request) -> bool:
            scope = read_query(request).get("X-Amz-Credential", request.headers.get("Authorization", ""))
            return f"/{region}/s3/" not in scope

        proxy.add(is_elsewhere, lambda _: Response(400, headers | {"Content-Length": str(len(body))}, iter([body])))

    return fake


def read_query(request: Request) -> dict[str, str]:
    """Return the parameters of a request."""
    query = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
    return {name: values[0] for name, values in query.items()}


def has_condition(request: Request) -> bool:
    """Return whether a request has If-Match or If-None-Match."""
    return any(name.lower() in CONDITIONS for name in request.headers)


def _has_checksum(request: Request) -> bool:
    return any(name.lower().startswith(CHECKSUMS) for name in request.headers)


def _has_header(request: Request, wanted: str) -> bool:
    return any(name.lower() == wanted for name in request.headers)
