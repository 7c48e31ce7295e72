"""What only Google's store has: credentials, links that Google signs, and uploads that continue where they stopped."""

import base64
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import google.auth.iam
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from google.auth.compute_engine import _metadata

from config.errors import Unavailable
from pipeline.storage import GoogleOptions, PartOptions, Storage, open_storage
from tests.contract.stores import KEY, PART, gcs_options, gcs_store, noise, upload_file
from tests.services.gcs import EMAIL, Gcs, GcsBucket, make_credentials, make_key
from tests.services.gcs_front import TOKEN
from tests.support import selection
from tests.support.http_proxy import Forward, HttpProxy, Request, Response, http_proxy
from tests.support.responses import after_forwarding, reply

HOUR = timedelta(hours=1)
BUSY = reply(503, b"")
QUICK = PartOptions(size=PART, pauses=(0.01,) * 3)
VARIABLE = "LANGFUSE_GOOGLE_CLOUD_STORAGE_CREDENTIALS"


def make_elliptic_credentials() -> str:
    """Credentials whose key can be read, but can't sign as Google demands."""
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    content = json.loads(make_credentials(make_key(), "http://127.0.0.1:1"))
    return json.dumps(content | {"private_key": key.decode()})


@pytest.fixture
def bucket(gcs: Gcs) -> Iterator[GcsBucket]:
    with gcs.bucket() as made:
        yield made


# credentials


@pytest.mark.parametrize(
    ("credentials", "sentence"),
    [
        ('{"type": "service_account"', "is not the JSON of a service account's key"),
        ('{"type": "service_account", "private_key": "hush"}', "is not the JSON of a service account's key"),
        ('{"type": "external_account"}', "set GOOGLE_APPLICATION_CREDENTIALS to their file"),
        ("hush" * 200, "is neither JSON nor a file that can be read"),
        ("/no/such/file.json", "No such file"),
        ('{"type": ' + "[" * 100_000, "is not the JSON of a service account's key"),
        (make_elliptic_credentials(), "is not the JSON of a service account's key"),
        ("with\0nul", "is neither JSON nor the path of a file"),
    ],
)
def test_credentials_that_cant_be_right_are_named_and_not_shown(credentials: str, sentence: str) -> None:
    options = GoogleOptions(credentials=credentials)
    with pytest.raises(ValueError, match=f"{VARIABLE}: .*{sentence}") as caught:
        open_storage("gs://exports", options)
    assert "hush" not in str(caught.value) + repr(options)


def test_credentials_may_be_in_a_file(bucket: GcsBucket, tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text(bucket.credentials)
    upload_file(gcs_store(bucket, credentials=str(file)).storage, b"x")
    assert bucket.objects() == {KEY: 1}


def test_the_default_credentials_are_used_without_others(
    bucket: GcsBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key.json"
    file.write_text(bucket.credentials)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    store = gcs_store(bucket, credentials=None)
    store.storage.check("")
    upload_file(store.storage, b"x")
    assert bucket.objects() == {KEY: 1}
    assert "X-Goog-Expires=604800&" in store.storage.sign(KEY, timedelta(days=7), "a.csv", "text/csv")


def test_credentials_that_google_refuses_are_named(bucket: GcsBucket) -> None:
    forged = make_credentials(make_key(), bucket.endpoint)
    with pytest.raises(Unavailable, match=f"the credentials were refused: is {VARIABLE} right"):
        gcs_store(bucket, credentials=forged).storage.check("")


def is_at(path: str, request: Request) -> bool:
    return urlsplit(request.path).path == path


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HttpProxy]:
    """The metadata server of a machine of Google, whose service account has no key."""
    answers = {
        "/computeMetadata/v1/project/project-id": "test",
        "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
        "/computeMetadata/v1/instance/service-accounts/default/": json.dumps({"email": EMAIL, "scopes": ["x"]}),
    }
    token = json.dumps({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})

    def respond(body: str, _: Forward) -> Response:
        kind = "application/json" if body.startswith("{") else "application/text"
        headers = {"Metadata-Flavor": "Google", "Content-Length": str(len(body)), "Content-Type": kind}
        return Response(200, headers, iter([body.encode()]))

    with http_proxy("127.0.0.1:9") as proxy:
        for path, body in answers.items():
            proxy.add(partial(is_at, path), partial(respond, body))
        proxy.add(lambda request: not request.path.endswith(":signBlob"), partial(respond, token))
        address = proxy.url.removeprefix("http://")
        monkeypatch.setenv("GCE_METADATA_IP", address)
        monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", address)  # it is read from the environment on import
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        monkeypatch.setattr(google.auth.iam, "_IAM_SIGN_ENDPOINT", f"{proxy.url}/{{}}:signBlob")
        yield proxy


def sign_remotely(bucket: GcsBucket, request: Request) -> Response:
    """Sign as Google does for a service account, with the key that the emulator's front knows."""
    key = load_pem_private_key(json.loads(bucket.credentials)["private_key"].encode(), None)
    payload = base64.b64decode(json.loads(request.body)["payload"])
    signature = key.sign(payload, PKCS1v15(), SHA256())  # type: ignore[union-attr, call-arg, arg-type]
    body = json.dumps({"signedBlob": base64.b64encode(signature).decode()}).encode()
    return Response(200, {"Content-Length": str(len(body))}, iter([body]))


def test_google_signs_links_for_a_service_account_without_a_key(bucket: GcsBucket, metadata: HttpProxy) -> None:
    asked: list[Request] = []

    def signs(request: Request) -> bool:
        asked.append(request)
        return request.path.endswith(":signBlob")

    metadata.add(signs, lambda _: sign_remotely(bucket, asked[-1]))
    storage = gcs_store(bucket, credentials=None).storage
    storage.check("")
    upload_file(storage, b"content")
    with urllib.request.urlopen(storage.sign(KEY, HOUR, "a.csv", "text/csv")) as response:
        assert response.read() == b"content"
    assert "X-Goog-Expires=43200&" in storage.sign(KEY, timedelta(days=7), "a.csv", "text/csv")


def test_a_service_account_that_may_not_sign_is_named_at_the_start(bucket: GcsBucket, metadata: HttpProxy) -> None:
    metadata.add(lambda request: request.path.endswith(":signBlob"), reply(403, b"{}"))
    storage = gcs_store(bucket, credentials=None, parts=QUICK).storage
    with pytest.raises(Unavailable, match=f"needs the role Service Account Token Creator on itself .{EMAIL}"):
        storage.check("")


# uploads


def test_a_chunk_continues_behind_what_is_stored_of_it(bucket: GcsBucket) -> None:
    """Google may store a part of a chunk and fail then."""
    cut: list[str] = []

    def cut_second(request: Request) -> Request:
        span = request.headers.get("Content-Range", "")
        if not span.startswith(f"bytes {PART}-") or cut:
            return request
        cut.append(span)
        headers = request.headers | {"Content-Range": f"bytes {PART}-{PART + 999}/*", "Content-Length": "1000"}
        return replace(request, headers=headers, body=request.body[:1000])

    with http_proxy(bucket.endpoint) as proxy:
        proxy.change = cut_second
        proxy.add(selection.sends_chunk, after_forwarding(BUSY), skip=1, times=1)
        upload_file(gcs_store(bucket, endpoint=proxy.url, parts=QUICK).storage, noise(3 * PART + 1))
    assert cut
    assert bucket.read(KEY) == noise(3 * PART + 1)


def test_an_upload_that_google_has_forgotten_fails(bucket: GcsBucket) -> None:
    with http_proxy(bucket.endpoint) as proxy:
        proxy.add(selection.sends_chunk, reply(410, b""), skip=1)
        with pytest.raises(Unavailable, match="410"):
            upload_file(gcs_store(bucket, endpoint=proxy.url, parts=QUICK).storage, noise(3 * PART))
    assert bucket.objects() == {}


def test_an_interrupted_upload_is_cancelled_at_google(bucket: GcsBucket) -> None:
    storage = gcs_store(bucket).storage
    with storage.open(KEY, "text/csv", 1) as upload:
        upload.write(noise(2 * PART))
        assert bucket.uploads() == [KEY]
    assert (bucket.objects(), bucket.uploads()) == ({}, [])


def test_unfinished_uploads_cant_be_listed(bucket: GcsBucket) -> None:
    storage: Storage = gcs_store(bucket).storage
    with storage.open(KEY, "text/csv", 1) as upload:
        upload.write(noise(2 * PART))
        later = datetime.now(UTC) + HOUR
        assert (storage.list_uploads("", later), storage.abort_uploads("", later)) == (set(), 0)


@pytest.mark.parametrize("scheme", ["gs", "gcs"])
def test_both_schemes_name_a_bucket(bucket: GcsBucket, scheme: str) -> None:
    upload_file(open_storage(f"{scheme}://{bucket.name}/root", gcs_options(bucket)), b"x")
    assert bucket.objects() == {f"root/{KEY}": 1}


def test_no_token_is_sent_to_the_address_of_an_upload(bucket: GcsBucket) -> None:
    seen: list[Request] = []

    def pass_on(forward: Forward) -> Response:
        return forward()

    def note(request: Request) -> bool:
        seen.append(request)
        return True

    with http_proxy(bucket.endpoint) as proxy:
        proxy.add(note, pass_on)
        upload_file(gcs_store(bucket, endpoint=proxy.url).storage, noise(2 * PART))
    assert [request.path for request in seen if "Transfer-Encoding" in request.headers] == []
    with_token: dict[str, set[bool]] = {}
    for request in seen:
        kind = "chunk" if "upload_id" in request.path else "other" if "/o" in request.path else "token"
        with_token.setdefault(kind, set()).add("Authorization" in request.headers)
    assert with_token == {"other": {True}, "chunk": {False}}
