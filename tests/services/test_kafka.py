"""A broker that cannot start says why."""

import socket
from pathlib import Path

import pytest

from tests.services import choice, kafka


def test_a_port_that_is_in_use_is_named_as_the_reason(services_folder: Path) -> None:
    if reason := choice.why_not("kafka"):
        pytest.skip(reason)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        broker = kafka.start(services_folder / "refused-kafka", port)
        with pytest.raises(RuntimeError, match="Address already in use"), broker:
            pytest.fail("the broker started")
