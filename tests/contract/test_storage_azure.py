"""What only Azure's store has: containers, identities without a key, and blocks that all uploads of a blob share."""

import base64
import json
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import wait
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from config.errors import Unavailable
from pipeline.storage import AzureOptions, PartOptions, open_storage
from tests.contract.stores import KEY, PART, azure_options, azure_store, noise, upload_file
from tests.services import azure as azure_service
from tests.services.azure import ACCOUNT, Azure, Container, open_service
from tests.support.certificates import make_authority
from tests.support.http_proxy import http_proxy
from tests.support.responses import reply

HOUR = timedelta(hours=1)


@pytest.fixture
def container(azure: Azure) -> Iterator[Container]:
    with azure.bucket() as made:
        yield made


# containers


def test_a_missing_container_is_created_only_if_the_options_say_so(azure: Azure) -> None:
    place = Container(azure.endpoint, f"made-{time.time_ns()}")
    with pytest.raises(Unavailable, match="LANGFUSE_AZURE_SKIP_CONTAINER_CHECK=false creates it"):
        azure_store(place).storage.check("")
    for _ in range(2):
        azure_store(place, create_container=True).storage.check("")
    assert azure_store(place).objects() == {}
    place.client.delete_container()


@pytest.mark.parametrize(
    "url", ["abfs://{}@{}.dfs.core.windows.net/root", "abfss://{}/root", "az://{}/root", "abfs://{}/root"]
)
def test_every_form_of_the_url_names_a_container(container: Container, url: str) -> None:
    storage = open_storage(url.format(container.name, ACCOUNT), azure_options(container))
    upload_file(storage, b"x")
    assert container.objects() == {f"root/{KEY}": 1}


def test_a_url_may_name_the_account() -> None:
    options = AzureOptions(key=azure_service.KEY)
    storage = open_storage("abfss://exports@acme.dfs.core.usgovcloudapi.net/root", options)
    url = storage.sign(KEY, HOUR, "a.csv", "text/csv")
    assert url.startswith(f"https://acme.blob.core.usgovcloudapi.net/exports/root/{KEY}?")


def test_the_endpoint_is_that_of_the_account_in_the_public_cloud() -> None:
    options = AzureOptions(account="acme", key=azure_service.KEY)
    url = open_storage("abfs://exports", options).sign(KEY, HOUR, "a.csv", "text/csv")
    assert url.startswith(f"https://acme.blob.core.windows.net/exports/{KEY}?")


# options and credentials


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (AzureOptions(), "ACCESS_KEY_ID is missing: for Azure it is the name of the account"),
        (AzureOptions(key="c2VjcmV0", endpoint="https://x.test"), "ACCESS_KEY_ID is missing"),
        (AzureOptions(account="a", key="hush!"), "SECRET_ACCESS_KEY: is not the key of an Azure account"),
        (AzureOptions(account="a", key="hüsh"), "SECRET_ACCESS_KEY: is not the key of an Azure account"),
        (AzureOptions(account="a/b", key="c2VjcmV0"), "ACCESS_KEY_ID: is not the name of an Azure account"),
        (AzureOptions(account="[::1", key="c2VjcmV0"), "ACCESS_KEY_ID: is not the name of an Azure account"),
        (AzureOptions(account="a", endpoint="http://x.test"), "ENDPOINT: must start with https://"),
    ],
)
def test_options_that_cant_be_right_are_named(options: AzureOptions, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        open_storage("abfs://exports", options)
    assert "hush" not in str(caught.value) + repr(options)


def test_the_error_names_a_wrong_key(container: Container) -> None:
    storage = azure_store(container, key=base64.b64encode(b"wrong").decode()).storage
    with pytest.raises(Unavailable, match="SECRET_ACCESS_KEY"):
        storage.check("")


def test_a_process_without_credentials_is_told_which_it_may_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("IDENTITY_ENDPOINT", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    storage = open_storage("abfs://exports", AzureOptions(endpoint="https://127.0.0.1:9/acme"))
    with pytest.raises(Unavailable, match=r"no credentials: set LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID.*identity"):
        storage.size(KEY)


def make_token() -> str:
    """A token as Azure issues it; its emulator does not check the signature."""
    now = int(time.time())
    issuer = "https://sts.windows.net/00000000-0000-0000-0000-000000000000/"
    claims = {"aud": "https://storage.azure.com", "iss": issuer, "nbf": now - 60, "exp": now + 3600, "oid": "1"}
    claims |= {"iat": now - 60, "tid": "00000000-0000-0000-0000-000000000000"}
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


def test_an_identity_of_the_process_replaces_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are then signed with a key that Azure gives to the identity."""
    authority = make_authority(tmp_path)
    tls: list[str | Path] = ["--oauth", "basic", "--cert", authority.certificate, "--key", authority.key]
    answer = {"access_token": make_token(), "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with azure_service.start(tmp_path / "azurite", options=tls) as secure, http_proxy("127.0.0.1:9") as identity:
        asked = identity.add(lambda _: True, reply(200, json.dumps(answer).encode()))
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{identity.url}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "of-the-platform")
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        endpoint = secure.endpoint.replace("http://", "https://")
        open_service(endpoint, connection_verify=str(authority.file)).create_container("exports")
        storage = open_storage("abfs://exports", AzureOptions(endpoint=endpoint, parts=PartOptions(size=PART)))
        storage.check("")
        upload_file(storage, noise(PART + 1))
        url = storage.sign(KEY, timedelta(days=7), "a.csv", "text/csv")
        assert "skoid=" in url
        with urllib.request.urlopen(url) as response:
            assert response.read() == noise(PART + 1)
            assert response.headers["Content-Disposition"] == 'attachment; filename="a.csv"'
        other = open_storage("abfs://exports", AzureOptions(endpoint=endpoint))
        urls = [other.sign(KEY, HOUR / share, "a.csv", "text/csv") for share in (6, 5)]
        assert len({parse_qs(urlsplit(each).query)["ske"][0] for each in urls}) == 1
    assert asked.done


# blocks


def test_an_upload_that_ends_leaves_the_blocks_of_another_one(container: Container) -> None:
    store = azure_store(container)
    with store.storage.open(KEY, "text/csv", 2) as successor:
        successor.write(noise(PART))
        wait(successor._in_flight)  # type: ignore[attr-defined]
        with store.storage.open(KEY, "text/csv", 1) as stalled:
            stalled.write(noise(PART))
        successor.finish()
    assert store.read(KEY) == noise(PART)
    assert store.partial_files() == []


def test_an_upload_whose_blocks_were_discarded_says_that_it_was_overtaken(container: Container) -> None:
    store = azure_store(container)
    with store.storage.open(KEY, "text/csv", 1) as late:
        late.write(noise(2 * PART))
        wait(late._in_flight)  # type: ignore[attr-defined]
        assert store.storage.abort_uploads("", datetime.now(UTC) + HOUR) == 1
        with pytest.raises(Unavailable, match="InvalidBlockList"):
            late.finish()
    assert (store.objects(), store.partial_files()) == ({}, [])


def test_blocks_of_other_programs_are_left_alone(container: Container) -> None:
    container.client.get_blob_client("exports/other").stage_block("0001", b"x")
    storage = azure_store(container).storage
    assert storage.list_uploads("", datetime.now(UTC) + HOUR) == set()
    assert storage.abort_uploads("", datetime.now(UTC) + HOUR) == 0
    assert container.uploads() == ["exports/other"]


def test_an_upload_of_too_many_blocks_fails_before_the_store_refuses_it(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.azure_upload.MAX_BLOCKS", 2)
    with pytest.raises(Unavailable, match="more than 2 blocks; the next attempt uses larger ones"):
        upload_file(azure_store(container).storage, noise(3 * PART))
    assert (container.objects(), container.uploads()) == ({}, [])
