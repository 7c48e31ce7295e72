"""AWS clients of the tests share what botocore parses."""

import botocore.session  # type: ignore[import-untyped]  # it ships no types


def test_two_sessions_share_the_parsed_model_of_a_service() -> None:
    one, other = (botocore.session.Session().get_service_model("s3") for _ in range(2))

    assert one.metadata is other.metadata
