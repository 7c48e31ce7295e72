"""Which services this run uses: the real ones where the machine has them, or as WAYBILL_TEST_REAL says."""

import os
from collections.abc import Sequence
from functools import cache

from tests.services import azure, bridge, chromium, gcs, kafka, pgbouncer, postgres, redis, s3, smtp
from tests.services.installed import Availability

_MODES = {
    "auto": "real services where the machine has them",
    "require": "a missing real service is an error",
    "off": "the embedded parts alone",
}

_STACK = {"kafka", "postgres", "s3", "smtp"}
"""The services of a whole stack; a test that needs another one asks for it by its fixture."""


@cache
def found() -> Sequence[Availability]:
    """What this machine has of the real services, in the order they are reported."""
    return [
        service.available() for service in (kafka, postgres, pgbouncer, s3, smtp, azure, gcs, chromium, redis, bridge)
    ]


def problem() -> str | None:
    """Why this run must not start, or None."""
    if _mode() not in _MODES:
        return f"WAYBILL_TEST_REAL is {_mode()!r}; it can be {', '.join(_MODES)}"
    if _mode() == "require" and _missing():
        lines = [f"  {each}" for each in _missing()]
        return "\n".join(["WAYBILL_TEST_REAL=require, but tests/services/install.sh has yet to install:", *lines])
    return None


def why_not(service: str) -> str | None:
    """Why tests of one real service are skipped, or None."""
    if _mode() == "off":
        return "WAYBILL_TEST_REAL=off"
    return next((str(each) for each in _missing() if each.service == service), None)


def kinds() -> list[str]:
    """The kinds of servers that every test of a whole stack runs on."""
    missing = [each for each in _missing() if each.service in _STACK]
    return ["embedded"] if _mode() == "off" or missing else ["embedded", "real"]


def report() -> list[str]:
    """The lines at the head of a run: what it runs on, and why not on more."""
    heading = f"services: {' and '.join(kinds())} (WAYBILL_TEST_REAL={_mode()}: {_MODES[_mode()]})"
    if _mode() == "off":
        return [heading]
    hint = ["  tests/services/install.sh installs what is missing"] if _missing() else []
    return [heading, *(f"  {each}" for each in found()), *hint]


def left_out() -> str:
    """The line after `make test`: what it did not run, and how to run it."""
    missing = ", ".join(each.service for each in _missing())
    install = f"; tests on {missing} (install: tests/services/install.sh)" if missing and _mode() == "auto" else ""
    return f"Not run: slow tests, chart, alerts, containers (run: make ci); faults (run: make faults-often){install}"


def _mode() -> str:
    return os.environ.get("WAYBILL_TEST_REAL") or "auto"


def _missing() -> list[Availability]:
    return [each for each in found() if each.why_not]


if __name__ == "__main__":
    print(left_out())
