"""The engine's exceptions, with the codes, statuses and texts of a ClickHouse server."""

import re
from http import HTTPStatus

UNKNOWN_EXCEPTION = 1002
UNKNOWN_SETTING = 115
NOT_IMPLEMENTED = 48
INCORRECT_DATA = 117
SYNTAX_ERROR = 62

CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")
VERSION = re.compile(r"\s*\(version [^()]*(?:\([^()]*\))?\)\.?")

# As on a server, every other code is 500.
STATUSES = {
    HTTPStatus.BAD_REQUEST: (6, 26, 27, 33, 36, 38, 41, 42, 43, 53, SYNTAX_ERROR, 69, 70, 72, INCORRECT_DATA, 456, 457),
    HTTPStatus.NOT_FOUND: (16, 46, 47, 50, 56, 60, 73, 78, 81, UNKNOWN_SETTING),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (223,),
    HTTPStatus.NOT_IMPLEMENTED: (NOT_IMPLEMENTED,),
}
STATUS_BY_CODE = {code: status for status, codes in STATUSES.items() for code in codes}


class ServerError(Exception):
    """An error for the client: ClickHouse's error code, and its text without the `Code:` prefix."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status, if the response has not begun."""
        return STATUS_BY_CODE.get(self.code, HTTPStatus.INTERNAL_SERVER_ERROR)

    def body(self, version: str) -> bytes:
        """Return the exception as a server of this version writes it into a body."""
        return f"Code: {self.code}. DB::Exception: {self.text} (version {version} (official build))\n".encode()


def translate_error(error: Exception) -> ServerError:
    """Read code and text from an exception of the engine."""
    message = VERSION.sub("", str(error))
    found = list(CODE.finditer(message))
    if not found:
        return ServerError(UNKNOWN_EXCEPTION, f"{message}. (UNKNOWN_EXCEPTION)")
    # The engine may wrap an exception in another with the same code; the innermost one contains the reason.
    innermost = found[-1]
    text = message[innermost.end() :].strip()
    name = re.search(r"\(([A-Z][A-Z0-9_]+)\)", text)
    return ServerError(int(innermost[1]), _move_name_to_end(text, name[0]) if name else text)


def _move_name_to_end(text: str, name: str) -> str:
    """Move the name of the error to the end of the text."""
    return f"{text.replace(f' {name}', '').strip()} {name}"
