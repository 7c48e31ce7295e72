"""Finds environment variables that are probably misspelt settings."""

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

# Also finds a prefix with a character too few, too many or in the wrong place.
_LIKE_OURS = re.compile(r"W[AYBIL]{4,8}_\w+", re.IGNORECASE)
# Kubernetes gives pods the addresses of all services in their namespace, as Docker's links did.
_OF_A_SERVICE = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+")
_LIKENESS = 0.6


def find_unknown(environment: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """Yield one sentence for each variable that is probably meant as a setting, with the most similar of the known."""
    endings = {_ending(name): name for name in sorted(known) if _LIKE_OURS.fullmatch(name)}
    for name, value in sorted(environment.items()):
        if not _LIKE_OURS.fullmatch(name) or name.upper() in known:
            continue
        if _OF_A_SERVICE.fullmatch(name) or (name.endswith("_PORT") and _ADDRESS.fullmatch(value)):
            continue
        near = get_close_matches(_ending(name.upper()), endings, 1, _LIKENESS)
        hint = f"did you mean {endings[near[0]]}?" if near else "no setting has a similar name"
        yield f"{name} is not a setting: {hint}"


def _ending(name: str) -> str:
    return name.partition("_")[2]
