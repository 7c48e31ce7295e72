"""A ClickHouse user with a profile of its own, made of a proxy in front of a server where every user may do all."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, urlencode, urlsplit

from embedded.clickhouse.request import INTERFACE_PARAMETERS, PARAMETER_PREFIX
from tests.support.http_proxy import Forward, HttpProxy, Request, Response, http_proxy

READONLY, VIOLATION = 164, 452
_LIMITED = b"(SELECT * REPLACE (%s AS value, %s AS min, %s AS max, %s AS readonly) FROM system.settings)"


@dataclass(frozen=True)
class User:
    """What a profile says: `values` of settings, ranges that they must keep to, and whether no setting may change."""

    readonly: bool = False
    values: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()

    def may_set(self, name: str) -> bool:
        return not self.readonly and name not in self.fixed

    def find_violation(self, request: Request) -> tuple[int, str] | None:
        """Code and text of the error of a server whose user has this profile, for the settings of a request."""
        for name, value in _settings(request).items():
            if not self.may_set(name):
                return READONLY, f"Cannot modify '{name}' setting in readonly mode. (READONLY)"
            low, high = self.ranges.get(name, (None, None))
            if high is not None and float(value) > high:
                return VIOLATION, f"Setting {name} shouldn't be greater than {high}. (SETTING_CONSTRAINT_VIOLATION)"
            if low is not None and float(value) < low:
                return VIOLATION, f"Setting {name} shouldn't be less than {low}. (SETTING_CONSTRAINT_VIOLATION)"
        return None

    def apply(self, request: Request) -> Request:
        """Return the request with the profile's values, and with its limits in system.settings."""
        parts = urlsplit(request.path)
        given = [*self.values.items(), *parse_qsl(parts.query, keep_blank_values=True)]
        body = request.body.replace(b"system.settings", self._describe_limits())
        length = {"Content-Length": str(len(body))}
        return replace(request, path=f"{parts.path}?{urlencode(given)}", body=body, headers=request.headers | length)

    def _describe_limits(self) -> bytes:
        lowest = {name: low for name, (low, _) in self.ranges.items() if low is not None}
        highest = {name: high for name, (_, high) in self.ranges.items() if high is not None}
        readonly = "1" if self.readonly else _choose(dict.fromkeys(self.fixed, 1), "0")
        texts = (_choose(self.values, "value"), _choose(lowest, "NULL"), _choose(highest, "NULL"), readonly)
        return _LIMITED % tuple(text.encode() for text in texts)


def _choose(values: Mapping[str, object], otherwise: str) -> str:
    cases = "".join(f"name = '{name}', '{value}', " for name, value in values.items())
    if otherwise in {"0", "1"}:
        cases = cases.replace(", '1', ", ", 1, ")
    return f"multiIf({cases}{otherwise})" if cases else otherwise


def _settings(request: Request) -> dict[str, str]:
    given = dict(parse_qsl(urlsplit(request.path).query, keep_blank_values=True))
    # These are settings for a server, although the embedded one does not pass them to its engine.
    own = INTERFACE_PARAMETERS - {
        *("send_progress_in_http_headers", "http_headers_progress_interval_ms", "enable_http_compression"),
        "cancel_http_readonly_queries_on_client_close",
    }
    # Parameters that describe the tables which are sent along are no settings either.
    external = ("_format", "_structure", "_types") if b"filename=" in request.body else ()
    return {
        name: value
        for name, value in given.items()
        if name not in own and not name.startswith(PARAMETER_PREFIX) and not name.endswith(external)
    }


@contextmanager
def serve(target: str, user: User, tls: ssl.SSLContext | None = None) -> Iterator[HttpProxy]:
    """Run a server for a user with this profile in front of another one while the block runs; over TLS if given."""
    with http_proxy(target, tls) as proxy:
        refused: dict[int, tuple[int, str]] = {}

        def violates(request: Request) -> bool:
            found = user.find_violation(request)
            if found is not None:
                refused[0] = found
            return found is not None

        def refuse(_: Forward) -> Response:
            code, text = refused[0]
            body = f"Code: {code}. DB::Exception: {text} (version 26.9.2.1)".encode()
            headers = {"X-ClickHouse-Exception-Code": str(code), "Content-Length": str(len(body))}
            return Response(500, headers, iter([body]))

        proxy.add(violates, refuse)
        proxy.change = user.apply
        yield proxy
