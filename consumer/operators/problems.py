"""Answers errors of the API as problem details (RFC 9457)."""

import json
import math
from http import HTTPStatus
from typing import Any

from aiohttp import web

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """Why a request is not fulfilled: an HTTP status, a title, and a sentence that says what to do.

    `errors` names the fields of a body that are wrong; `retry_after` is in seconds.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.errors = errors
        self.retry_after = retry_after

    def answer(self) -> web.Response:
        """Return the response."""
        body: dict[str, Any] = {"type": "about:blank", "title": self.title, "status": self.status, "detail": str(self)}
        headers = {"Content-Type": CONTENT_TYPE}
        if self.errors is not None:
            body["errors"] = self.errors
        if self.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(self.retry_after))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return web.Response(status=self.status, body=json.dumps(body).encode(), headers=headers)
