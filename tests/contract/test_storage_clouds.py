"""What the stores of Azure and Google have in common: links, properties, refusals by setting, lost responses."""

import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.checks.storage import Report, examine
from config.errors import Unavailable
from pipeline.storage import AzureOptions, GoogleOptions, PartOptions, Storage, open_storage
from tests.contract.stores import KEY, PART, azure_options, gcs_options, noise, upload_file
from tests.services.azure import Container
from tests.services.gcs import GcsBucket
from tests.support import selection
from tests.support.certificates import make_authority
from tests.support.daemons import eventually
from tests.support.http_proxy import HttpProxy, Request, http_proxy
from tests.support.responses import after_forwarding, cut, reply
from tests.support.tcp_proxy import Conditions, tcp_proxy

HOUR = timedelta(hours=1)
SIZES = (10, 2 * PART + 1)
QUICK = PartOptions(size=PART, pauses=(0.01,) * 4)
BUSY = reply(503, b"")
FORBIDDEN = reply(403, b"")


@dataclass(frozen=True)
class Cloud:
    """A container or bucket of an emulator; `scheme` is that of its URL, `options` how to reach it."""

    scheme: str
    place: Container | GcsBucket
    options: AzureOptions | GoogleOptions
    sends_part: Callable[[Request], bool]
    completes: Callable[[Request], bool]

    def open(self, root: str = "", count: Callable[[str], None] = lambda _: None, **changed: Any) -> Storage:
        """Open the store, with other options if given."""
        return open_storage(f"{self.scheme}://{self.place.name}/{root}", replace(self.options, **changed), count)

    def proxy(self) -> Any:
        """Run a proxy in front of the emulator."""
        return http_proxy(self.place.endpoint)


@pytest.fixture(params=["azure", "gcs"])
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    with request.getfixturevalue(request.param).bucket() as place:
        if isinstance(place, Container):
            options: AzureOptions | GoogleOptions = azure_options(place, parts=QUICK)
            yield Cloud("abfs", place, options, selection.stages_block, selection.commits_blocks)
        else:
            options = gcs_options(place, parts=QUICK)
            yield Cloud("gs", place, options, selection.sends_chunk, selection.ends_chunks)


def fetch(url: str) -> tuple[int, dict[str, str], bytes]:
    """Open a link as a browser does."""
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def is_empty(cloud: Cloud) -> bool:
    return (cloud.place.objects(), cloud.place.uploads()) == ({}, [])


# links


def test_a_link_downloads_the_file_under_its_name_and_type(cloud: Cloud) -> None:
    storage = cloud.open()
    upload_file(storage, noise(PART + 1))
    url = storage.sign(KEY, HOUR, f"{KEY}é\r\n", "text/csv; charset=utf-8")
    status, headers, body = fetch(url)
    name = KEY.rpartition("/")[2]
    assert (status, body) == (200, noise(PART + 1))
    found = {key.lower(): value for key, value in headers.items()}
    assert found["content-type"] == "text/csv; charset=utf-8"
    assert found["content-disposition"] == f"attachment; filename=\"{name}_\"; filename*=UTF-8''{name}%C3%A9"


def test_a_link_is_refused_once_it_has_expired(cloud: Cloud) -> None:
    storage = cloud.open()
    upload_file(storage, b"secret")
    url = storage.sign(KEY, timedelta(seconds=1), "a.csv", "text/csv")
    status, body = eventually(lambda: found if (found := fetch(url)[::2])[0] != 200 else None, what="the link expires")
    assert status in {400, 403}
    assert b"secret" not in body


@pytest.mark.parametrize("changed", ["path", "name", "type"])
def test_a_changed_link_is_refused(cloud: Cloud, changed: str) -> None:
    storage = cloud.open()
    for key in (KEY, f"{KEY}2"):
        upload_file(storage, b"secret", key=key)
    url = storage.sign(KEY, HOUR, "a.csv", "text/csv")
    old, new = {"path": (KEY, f"{KEY}2"), "name": ("a.csv", "b.html"), "type": ("csv&", "html&")}[changed]
    assert fetch(url)[0] == 200
    changed_url = url.replace(old, new) if old in url else url.replace("text%2Fcsv", "text%2Fhtml")
    assert changed_url != url
    assert fetch(changed_url)[0] == 403


def test_a_link_is_signed_for_the_external_endpoint(cloud: Cloud) -> None:
    outside = "https://files.example.com"
    url = cloud.open(external_endpoint=outside).sign("a b/ü.csv", timedelta(days=7), "a.csv", "text/csv")
    assert url.startswith(f"{outside}/{cloud.place.name}/a%20b/%C3%BC.csv?")


@pytest.mark.parametrize("lifetime", [timedelta(days=7, seconds=1), timedelta(), timedelta(seconds=-1)])
def test_a_link_lives_for_a_week_at_most(cloud: Cloud, lifetime: timedelta) -> None:
    with pytest.raises(ValueError, match="up to 7 days"):
        cloud.open().sign(KEY, lifetime, "a.csv", "text/csv")


# objects


def test_files_are_stored_below_the_root(cloud: Cloud) -> None:
    storage = cloud.open("some/root/")
    upload_file(storage, noise(PART))
    assert cloud.place.objects() == {f"some/root/{KEY}": PART}
    assert storage.size(KEY) == PART


@pytest.mark.parametrize("size", SIZES)
def test_an_object_has_its_content_type_name_and_attempt(cloud: Cloud, size: int) -> None:
    upload_file(cloud.open(), noise(size), attempt=7)
    disposition = f'attachment; filename="{KEY.rpartition("/")[2]}"'
    if isinstance(cloud.place, GcsBucket):
        found = cloud.place.describe(KEY)
        properties = found["contentType"], found["contentDisposition"], found["metadata"]
        assert properties == ("text/csv", disposition, {"waybill-attempt": "7"})
    else:
        head = cloud.place.client.get_blob_client(KEY).get_blob_properties()
        settings = head.content_settings
        properties = settings.content_type, settings.content_disposition, head.metadata
        assert properties == ("text/csv", disposition, {"waybill_attempt": "7"})


def test_a_name_that_is_too_long_is_rejected(cloud: Cloud) -> None:
    with pytest.raises(Exception, match="its name has 1,100 bytes"):
        cloud.open().open("k" * 1100, "text/csv", 1)


# refusals


def test_a_missing_bucket_is_named_with_its_setting(cloud: Cloud) -> None:
    storage = open_storage(f"{cloud.scheme}://no-such-bucket-of-ours", cloud.options)
    for call in (lambda: storage.check(""), lambda: upload_file(storage, noise(PART + 1))):
        with pytest.raises(Unavailable, match="LANGFUSE_S3_BATCH_EXPORT_BUCKET"):
            call()
    assert storage.size(KEY) is None if cloud.scheme == "gs" else True


def test_the_doctor_finds_nothing_and_leaves_nothing(cloud: Cloud) -> None:
    assert examine(cloud.open(), "exports/", ".waybill-doctor") == Report(())
    assert is_empty(cloud)


def test_the_doctor_names_conditions_that_a_store_ignores(cloud: Cloud) -> None:
    with cloud.proxy() as proxy:
        # Azure's emulator checks signatures, of which the conditions are a part: they can't be removed.
        proxy.add(selection.puts_conditionally, reply(201, b""))
        proxy.change = lambda request: replace(request, path=request.path.replace("&ifGenerationMatch=1&", "&"))
        report = examine(cloud.open(endpoint=proxy.url), "exports/", ".waybill-doctor")
    assert report.problems == ()
    assert ["ignores the condition" in each for each in report.weaknesses] == [True]
    assert is_empty(cloud)


def test_a_store_that_refuses_is_named_with_the_role_that_is_missing(cloud: Cloud) -> None:
    with cloud.proxy() as proxy:
        proxy.add(lambda request: request.method in {"PUT", "POST"} and "/token" not in request.path, FORBIDDEN)
        storage = cloud.open(endpoint=proxy.url)
        with pytest.raises(Unavailable, match="role Storage") as caught:
            upload_file(storage, noise(PART + 1))
        report = examine(storage, "", ".waybill-doctor")
    assert caught.value.advice is not None
    assert "the store refuses them (403)" in caught.value.advice
    assert any("role Storage" in problem for problem in report.problems)


def test_an_endpoint_that_does_not_answer_is_named_with_its_setting(cloud: Cloud) -> None:
    storage = cloud.open(endpoint="http://127.0.0.1:9", parts=replace(QUICK, pauses=()))
    with pytest.raises(Unavailable, match=r"connection refused.*is LANGFUSE_S3_BATCH_EXPORT_ENDPOINT right\?"):
        storage.size(KEY)


def test_a_private_authority_is_trusted_by_ssl_cert_file(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make_authority(tmp_path)
    with http_proxy(cloud.place.endpoint, authority.server_context()) as proxy:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(Unavailable, match=r"is not trusted.*in the file that SSL_CERT_FILE names\?"):
            cloud.open(endpoint=proxy.url, parts=replace(QUICK, pauses=())).size(KEY)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert cloud.open(endpoint=proxy.url).size(KEY) is None


# retries


@pytest.mark.parametrize("respond", [BUSY, reply(500, b""), reply(429, b""), cut])
def test_a_part_that_fails_temporarily_is_sent_again(cloud: Cloud, respond: Any) -> None:
    outcomes: Counter[str] = Counter()
    with cloud.proxy() as proxy:
        proxy.add(cloud.sends_part, respond, skip=1, times=4)
        upload_file(cloud.open(count=lambda each: outcomes.update([each]), endpoint=proxy.url), noise(3 * PART + 7))
    assert cloud.place.read(KEY) == noise(3 * PART + 7)
    assert outcomes["retried"] == 4
    assert outcomes["stored"] == 4
    assert cloud.place.uploads() == []


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_part_that_always_fails_fails_the_upload(cloud: Cloud, part: int) -> None:
    with cloud.proxy() as proxy:
        proxy.add(cloud.sends_part, BUSY, skip=part)
        with pytest.raises(Unavailable, match="503"):
            upload_file(cloud.open(endpoint=proxy.url), noise(3 * PART + 7))
    assert is_empty(cloud)


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_part_is_sent_as_often_as_the_setting_says(cloud: Cloud, attempts: int) -> None:
    parts = replace(QUICK, attempts=attempts, in_flight=1)
    with cloud.proxy() as proxy:
        proxy.add(selection.asks_for_state, reply(308, b""))
        rule = proxy.add(cloud.sends_part, BUSY)
        with pytest.raises(Unavailable, match="503"):
            upload_file(cloud.open(endpoint=proxy.url, parts=parts), noise(2 * PART))
    assert rule.done == attempts


def test_a_part_may_be_sent_slowly(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's timeout for connections must not limit how long a whole part takes to send."""
    for module in ("azure_calls", "google_client"):
        monkeypatch.setattr(f"pipeline.storage.{module}.CONNECT_SECONDS", 1.0)
    port = urllib.parse.urlsplit(cloud.place.endpoint).port or 0
    with tcp_proxy(port) as network:
        network.apply(Conditions(rate=8e6))
        endpoint = cloud.place.endpoint.replace(str(port), str(network.port))
        storage = cloud.open(endpoint=endpoint, parts=PartOptions(size=24 << 20, pauses=()))
        upload_file(storage, noise(30 << 20))
    assert cloud.place.objects() == {KEY: 30 << 20}


@pytest.mark.parametrize("size", SIZES)
def test_an_upload_whose_last_response_is_lost_is_complete(cloud: Cloud, size: int) -> None:
    def matches(request: Request) -> bool:
        return cloud.completes(request) or selection.puts_object(request)

    with cloud.proxy() as proxy:
        rule = proxy.add(matches, after_forwarding(cut), times=1)
        assert upload_file(cloud.open(endpoint=proxy.url), noise(size), attempt=3) == size
    assert rule.done == 1
    assert cloud.place.read(KEY) == noise(size)
    assert cloud.place.uploads() == []


def test_a_part_whose_response_is_lost_is_stored_once(cloud: Cloud) -> None:
    with cloud.proxy() as proxy:
        proxy.add(cloud.sends_part, after_forwarding(BUSY), times=3)
        upload_file(cloud.open(endpoint=proxy.url), noise(4 * PART + 9))
    assert cloud.place.read(KEY) == noise(4 * PART + 9)


def test_an_upload_that_is_reported_as_stored_but_was_not_fails(cloud: Cloud) -> None:
    done = b'{"name": "k", "generation": "1", "size": "1"}' if cloud.scheme == "gs" else b""
    with cloud.proxy() as proxy:
        proxy.add(cloud.completes, reply(201, done))
        with pytest.raises(Unavailable, match="has no such"):
            upload_file(cloud.open(endpoint=proxy.url), noise(PART + 1))
    assert is_empty(cloud)


def test_a_deletion_that_is_overtaken_keeps_the_newer_file(cloud: Cloud) -> None:
    direct = cloud.open()
    upload_file(direct, b"old")

    def overtake(proxy: HttpProxy) -> None:
        def first_replace(forward: Any) -> Any:
            upload_file(direct, b"new", attempt=2)
            return forward()

        proxy.add(lambda request: request.method == "DELETE", first_replace, times=1)

    with cloud.proxy() as proxy:
        overtake(proxy)
        cloud.open(endpoint=proxy.url).delete(KEY, 1)
    assert cloud.place.read(KEY) == b"new"
