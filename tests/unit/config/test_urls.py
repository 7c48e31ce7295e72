"""A ClickHouse URL means what it means to Langfuse's client."""

import pytest

from config.urls import ClickHouseUrl, mask_password, read_clickhouse, read_store, split_clickhouse


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://ch:8123", ClickHouseUrl("http://ch:8123")),
        ("https://ch.example.com/", ClickHouseUrl("https://ch.example.com")),
        ("https://[::1]:9443", ClickHouseUrl("https://[::1]:9443")),
        ("https://ch:9443/langfuse", ClickHouseUrl("https://ch:9443", database="langfuse")),
        ("https://gw:8443/?pathname=/clickhouse", ClickHouseUrl("https://gw:8443/clickhouse")),
        ("https://gw/db?pathname=a/b", ClickHouseUrl("https://gw/a/b", database="db")),
        ("http://u%40x:p%2F%3F%23@ch:8123", ClickHouseUrl("http://ch:8123", "u@x", "p/?#")),
        ("http://u@ch:8123?request_timeout=5", ClickHouseUrl("http://ch:8123", "u")),
    ],
)
def test_a_clickhouse_url_is_split_into_its_parts(url: str, parts: ClickHouseUrl) -> None:
    assert split_clickhouse(read_clickhouse(url)) == parts


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("clickhouse:8123", "must start with http://"),
        ("http://:8123", "has no host"),
        ("http://gw:8123/a/b", "pathname=/path"),
        ("http://ch:8123?ch_max_threads=1", "'ch_max_threads'"),
        ("http://u:12/geheim@ch:8123", "percent-encoded"),
        ("http://u:12?geheim@ch:8123", "percent-encoded"),
        ("http://u:12#geheim@ch:8123", "percent-encoded"),
    ],
)
def test_a_clickhouse_url_that_can_not_be_honoured_is_refused_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|must) ") as raised:
        read_clickhouse(url)

    assert reason in str(raised.value)
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.blob.core.windows.net/?sv=1&sig=geheim%2B",
        "abfs://exports?sig=geheim",
        "https://login.example/token?api_key=geheim&x=1",
        "https://login.example/token?access_token=geheim",
        "https://s3.example/b?X-Amz-Signature=geheim",
    ],
)
def test_secrets_in_parameters_are_masked(url: str) -> None:
    masked = mask_password(url)

    assert "geheim" not in masked
    assert masked.startswith(url.partition("?")[0])


@pytest.mark.parametrize("url", ["https://acme.blob.core.windows.net/?sv=1&sig=geheim", "https://s3.example/#geheim"])
def test_the_url_of_a_store_has_no_query(url: str) -> None:
    with pytest.raises(ValueError, match="has a query or a fragment") as raised:
        read_store(url)

    assert "geheim" not in str(raised.value)
