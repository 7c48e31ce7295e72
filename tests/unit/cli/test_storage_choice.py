import os

import pytest

from cli import build
from config.settings import CONSUMER_NEEDS, Misconfigured, load
from pipeline.storage import AzureOptions, GoogleOptions, S3Options, Storage

BUCKET = {"LANGFUSE_S3_BATCH_EXPORT_BUCKET": "exports"}
AZURE = {
    **BUCKET,
    "LANGFUSE_USE_AZURE_BLOB": "true",
    "LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID": "acme",
    "LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY": "aHVzaA==",
    "LANGFUSE_S3_BATCH_EXPORT_ENDPOINT": "https://acme.blob.core.windows.net",
}
GOOGLE = {**BUCKET, "LANGFUSE_USE_GOOGLE_CLOUD_STORAGE": "true"}
KEY = "LANGFUSE_GOOGLE_CLOUD_STORAGE_CREDENTIALS"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("WAYBILL_", "LANGFUSE_", "BATCH_EXPORT_")):
            monkeypatch.delenv(name)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The arguments of each store that is opened."""
    found: list[tuple[object, ...]] = []
    monkeypatch.setattr("pipeline.storage.open_storage", lambda *given: found.append(given))
    return found


@pytest.mark.parametrize(
    ("given", "destination"),
    [
        (BUCKET, "s3://exports"),
        (BUCKET | {"LANGFUSE_USE_AZURE_BLOB": "false"}, "s3://exports"),
        (AZURE, "abfs://exports"),
        (GOOGLE, "gs://exports"),
        ({"WAYBILL_STORAGE_URL": "abfs://c@acme.dfs.core.windows.net/p"}, "abfs://c@acme.dfs.core.windows.net/p"),
    ],
)
def test_the_switches_of_langfuse_choose_the_store(given: dict[str, str], destination: str) -> None:
    assert load(given).destination == destination


def test_the_variables_of_the_bucket_reach_azure(opened: list[tuple[object, ...]]) -> None:
    more = {
        "LANGFUSE_AZURE_SKIP_CONTAINER_CHECK": "false",
        "LANGFUSE_S3_BATCH_EXPORT_EXTERNAL_ENDPOINT": "https://files.example.com",
        "BATCH_EXPORT_S3_PART_SIZE_MIB": "12.5",
        "LANGFUSE_S3_UPLOAD_MAX_PART_ATTEMPTS": "3",
        "LANGFUSE_S3_UPLOAD_MAX_CONCURRENT_PARTS": "4",
    }
    build.storage(load(AZURE | more))

    ((_, options, _),) = opened
    assert isinstance(options, AzureOptions)
    assert (options.account, options.key, options.create_container) == ("acme", "aHVzaA==", True)
    assert (options.endpoint, options.external_endpoint) == (
        "https://acme.blob.core.windows.net",
        "https://files.example.com",
    )
    assert (options.parts.size, options.parts.attempts, options.parts.in_flight) == (13_107_200, 3, 4)


def test_the_credentials_reach_google(opened: list[tuple[object, ...]]) -> None:
    build.storage(load(GOOGLE | {KEY: '{"type": "service_account"}'}))

    ((_, options, _),) = opened
    assert isinstance(options, GoogleOptions)
    assert options.credentials == '{"type": "service_account"}'


def test_without_a_switch_the_bucket_is_in_s3(opened: list[tuple[object, ...]]) -> None:
    build.storage(load(BUCKET))

    ((_, options, _),) = opened
    assert isinstance(options, S3Options)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (AZURE | GOOGLE, "LANGFUSE_USE_AZURE_BLOB and LANGFUSE_USE_GOOGLE_CLOUD_STORAGE are both true"),
        (AZURE | {"WAYBILL_STORAGE_URL": "file:///x"}, "LANGFUSE_USE_AZURE_BLOB and WAYBILL_STORAGE_URL are both set"),
        (
            GOOGLE | {"WAYBILL_STORAGE_URL": "gs://exports"},
            "LANGFUSE_USE_GOOGLE_CLOUD_STORAGE and WAYBILL_STORAGE_URL are both set",
        ),
        (
            BUCKET | {"LANGFUSE_USE_OCI_NATIVE_OBJECT_STORAGE": "true"},
            "LANGFUSE_USE_OCI_NATIVE_OBJECT_STORAGE: OCI's native API is not supported, but its S3-compatible API",
        ),
        (BUCKET | {"LANGFUSE_USE_AZURE_BLOB": "yes"}, "LANGFUSE_USE_AZURE_BLOB: Input should be 'true' or 'false'"),
    ],
)
def test_switches_that_contradict_each_other_are_named(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(given)

    assert [problem.startswith(sentence) for problem in caught.value.problems] == [True]


def test_the_switch_for_oci_may_be_off() -> None:
    assert load(BUCKET | {"LANGFUSE_USE_OCI_NATIVE_OBJECT_STORAGE": "false"}).destination == "s3://exports"


def open_store(given: dict[str, str]) -> Storage:
    return build.storage(load(given))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {name: value for name, value in AZURE.items() if "KEY_ID" not in name},
            "LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID is missing",
        ),
        (
            AZURE | {"LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY": "hush!"},
            "LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY: is not the key of an Azure account",
        ),
        (GOOGLE | {KEY: "hush"}, f"{KEY}: is neither JSON nor a file"),
        ({"WAYBILL_STORAGE_URL": "abfs://@acme.dfs.core.windows.net"}, "WAYBILL_STORAGE_URL: must be abfs://container"),
        ({"WAYBILL_STORAGE_URL": "abfs://c@u:hush@acme.dfs.core.windows.net"}, "WAYBILL_STORAGE_URL: must be abfs://"),
        ({"WAYBILL_STORAGE_URL": "gs:///hush"}, "WAYBILL_STORAGE_URL: must be gs://bucket"),
        ({"WAYBILL_STORAGE_URL": "gs://u:hush@exports"}, "WAYBILL_STORAGE_URL: must be gs://bucket"),
        ({"WAYBILL_STORAGE_URL": "github://hush"}, "WAYBILL_STORAGE_URL: fsspec can't open github://"),
        ({"WAYBILL_STORAGE_URL": "ftp://u:hush@nowhere.invalid/x"}, "WAYBILL_STORAGE_URL: fsspec can't open ftp://"),
        ({"WAYBILL_STORAGE_URL": "nonsense://hush"}, "WAYBILL_STORAGE_URL: fsspec knows no filesystem for nonsense://"),
    ],
)
def test_a_store_that_cant_be_opened_is_a_wrong_setting(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        open_store(given)

    assert caught.value.problems[0].startswith(sentence)
    assert "hush" not in str(caught.value)


def test_the_daemons_that_use_no_store_need_none_of_its_secrets() -> None:
    """The notifier has the settings of all, and no secrets of the store."""
    load({name: value for name, value in AZURE.items() if "KEY" not in name})
    with pytest.raises(Misconfigured) as caught:
        load({"LANGFUSE_USE_AZURE_BLOB": "true"}, needs=CONSUMER_NEEDS)
    assert "LANGFUSE_S3_BATCH_EXPORT_BUCKET is missing (or set WAYBILL_STORAGE_URL)" in caught.value.problems


def test_secrets_are_not_in_the_repr() -> None:
    assert "hush" not in repr(load(GOOGLE | {KEY: "hush"}))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, given, extra in (("azure", AZURE, "azure"), ("google", GOOGLE, "google")):
        monkeypatch.setitem(__import__("sys").modules, f"pipeline.storage.{module}", None)
        with pytest.raises(Misconfigured, match=rf"pip install '\.\[{extra}\]'"):
            open_store(given)
