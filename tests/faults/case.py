"""A case of the fault suite: what goes wrong, and what is promised all the same."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.faults import invariants
from tests.faults.system import Scene

SEED = os.environ.get("FAULT_SEED") or secrets.token_hex(4)
ROUNDS = int(os.environ.get("FAULT_ROUNDS") or 1)
FULL = os.environ.get("FAULT_FULL") == "1"
"""Whether waits are as long as the table says; else they are scaled down."""


@dataclass(frozen=True)
class Case:
    """`do` asks for exports and lets the fault happen; what is promised is looked at once all is well again.

    `scaled` says what is shorter than in life.
    """

    name: str
    do: Callable[[Scene], None]
    promise: invariants.Promise = invariants.COMPLETED
    scaled: str = ""


def play(case: Case, scene: Scene, number: int) -> None:
    """Play one round of a case, and see that every promise is kept."""
    scene.random = Random(f"{SEED}/{case.name}/{number}")
    scene.asked.clear()
    scene.servers.heal()
    of_others = invariants.mails_of_others(scene)
    try:
        case.do(scene)
        scene.servers.heal()
        invariants.settled(scene, scene.asked)
        problems = invariants.eventually_none(lambda: _broken(scene, case.promise))
        problems += invariants.eventually_none(lambda: invariants.uncounted(scene, of_others))
    finally:
        scene.servers.heal()
        scene.muster()
    assert problems == [], f"{problems} (FAULT_SEED={SEED}, round {number})"


def _broken(scene: Scene, promise: invariants.Promise) -> list[str]:
    seen = invariants.look(scene)
    return [f"{each}: {why}" for each in scene.asked for why in invariants.broken(scene, seen, each, promise)]
