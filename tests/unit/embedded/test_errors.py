import pytest

from embedded.clickhouse import errors


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        ("Code: 60. DB::Exception: No such table. (UNKNOWN_TABLE)", 60, "No such table. (UNKNOWN_TABLE)"),
        (
            "Streaming query failed: Code: 395. DB::Exception: Too late. (FUNCTION_THROW)",
            395,
            "Too late. (FUNCTION_THROW)",
        ),
        (
            "Code: 115. DB::Exception: Code: 115. DB::Exception: Not 'x'. (UNKNOWN) (version 26.9). (UNKNOWN)",
            115,
            "Not 'x'. (UNKNOWN)",
        ),
        ("something else", 1002, "something else. (UNKNOWN_EXCEPTION)"),
    ],
)
def test_the_innermost_code_and_text_are_read(message: str, code: int, text: str) -> None:
    error = errors.translate_error(RuntimeError(message))
    assert (error.code, error.text) == (code, text)


def test_a_body_is_that_of_a_server() -> None:
    body = errors.ServerError(60, "No such table. (UNKNOWN_TABLE)").body("26.9.2.1")
    expected = "Code: 60. DB::Exception: No such table. (UNKNOWN_TABLE) (version 26.9.2.1 (official build))\n"
    assert body.decode() == expected
