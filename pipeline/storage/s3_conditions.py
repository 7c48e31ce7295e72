"""Records whether a store supports, refuses or ignores the conditions of calls."""

import logging
from collections.abc import Mapping

logger = logging.getLogger(__name__)

OVERTAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
"""The error codes of S3 when another object has replaced the one that the call was made for."""

FAILED_CONDITIONS = {"PreconditionFailed", "412"}
"""The error codes of a condition that is not met; NoSuchKey is one, too, if the condition names an object."""

REFUSED_CONDITIONS = {"NotImplemented", "501", "InvalidArgument", "InvalidRequest", "NotSupported", "UnsupportedHeader"}
"""The error codes of stores that know no conditions; a call without conditions can fail with them, too."""


_RISK = "a worker that was stopped for longer than its lease could replace a newer file"


class Conditions:
    """What is known of the conditional calls of a store, by their method; used from several threads.

    At first nothing is known: a condition is sent, but not relied on.
    """

    def __init__(self) -> None:
        self._kept: set[str] = set()
        self._weak: dict[str, str] = {}
        self._refused: set[str] = set()

    @property
    def weaknesses(self) -> list[str]:
        """One sentence for each method whose condition the store does not keep."""
        return list(self._weak.values())

    def choose(self, method: str, condition: Mapping[str, str]) -> Mapping[str, str]:
        """Return the condition to send with a call: none if the store refuses it."""
        return {} if method in self._refused else condition

    def are_kept(self, method: str) -> bool:
        """Return whether the store has been seen to keep the condition of a method."""
        return method in self._kept

    def keep(self, method: str) -> None:
        """Note that a call whose condition was not met has failed, as it must."""
        if method not in self._weak:
            self._kept.add(method)

    def refuse(self, method: str) -> None:
        """Note that a call works only without its condition."""
        self._refused.add(method)
        self._weaken(method, f"the store has no conditional {method}: {_RISK}")

    def ignore(self, method: str) -> None:
        """Note that a call has succeeded although its condition was not met."""
        self._weaken(method, f"the store ignores the condition of {method}: {_RISK}")

    def _weaken(self, method: str, sentence: str) -> None:
        self._kept.discard(method)
        if method not in self._weak:
            logger.warning(sentence)
        self._weak[method] = sentence
