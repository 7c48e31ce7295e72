"""A ClickHouse URL means what it means to Langfuse's client."""

import pytest

from config.urls import ClickHouseUrl, read_clickhouse, split_clickhouse


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
