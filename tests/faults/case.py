"""A case of the fault suite: a fault, and what must hold in spite of it."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.faults import invariants
from tests.faults.system import System

SEED = os.environ.get("FAULT_SEED") or secrets.token_hex(4)
ROUNDS = int(os.environ.get("FAULT_ROUNDS") or 1)
FULL = os.environ.get("FAULT_FULL") == "1"
"""Whether waits are as long as the case names say; otherwise they are scaled down."""


@dataclass(frozen=True)
class Case:
    """`run` requests exports and injects the fault; the expectation is checked after all faults are healed.

    `scaled` names what is shorter than in production.
    """

    name: str
    run: Callable[[System], None]
    expectation: invariants.Expectation = invariants.COMPLETED
    scaled: str = ""


def run_case(case: Case, system: System, number: int) -> None:
    """Run one round of a case, and check every invariant."""
    system.random = Random(f"{SEED}/{case.name}/{number}")
    system.requested.clear()
    system.servers.heal()
    uncounted_before = invariants.uncounted_emails(system)
    try:
        case.run(system)
        system.servers.heal()
        invariants.wait_until_settled(system, system.requested)
        problems = invariants.eventually_none(lambda: _violations(system, case.expectation))
        problems += invariants.eventually_none(lambda: invariants.metric_differences(system, uncounted_before))
    finally:
        system.servers.heal()
        system.restore_daemons()
    assert problems == [], f"{problems} (FAULT_SEED={SEED}, round {number})"


def _violations(system: System, expectation: invariants.Expectation) -> list[str]:
    observed = invariants.observe(system)
    return [
        f"{each}: {why}"
        for each in system.requested
        for why in invariants.violations(system, observed, each, expectation)
    ]
