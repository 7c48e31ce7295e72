"""Finds the settings that are missing: those that a command needs, and those that others require."""

from collections.abc import Collection, Mapping

STORAGE = "LANGFUSE_S3_BATCH_EXPORT_BUCKET"
STORAGE_URL = "WAYBILL_STORAGE_URL"
DATABASE = "DATABASE_URL"
DATABASE_PARTS = ("DATABASE_HOST", "DATABASE_USERNAME", "DATABASE_PASSWORD", "DATABASE_NAME")

_INSTEAD = {STORAGE: STORAGE_URL, DATABASE: ", ".join(DATABASE_PARTS)}


def find_missing(given: Mapping[str, str], needs: Collection[str]) -> list[str]:
    """Return one sentence for each variable of `needs` that is missing, and for each that another one requires."""
    parts = [name for name in DATABASE_PARTS if given.get(name)]
    problems = []
    for name in needs:
        if given.get(name) or (name == STORAGE and given.get(STORAGE_URL)):
            continue
        if name == DATABASE and parts:
            lacking = (each for each in DATABASE_PARTS if each not in parts)
            problems += [f"{each} is missing: {parts[0]} requires it without {DATABASE}" for each in lacking]
        else:
            problems.append(say_missing(name))
    if given.get("WAYBILL_PUBLIC_URL") and not given.get("WAYBILL_SECRET_KEY"):
        problems.append("WAYBILL_SECRET_KEY is missing: WAYBILL_PUBLIC_URL requires it")
    return problems


def say_missing(name: str) -> str:
    """Say that a variable is missing, and which would do instead."""
    return f"{name} is missing" + (f" (or set {_INSTEAD[name]})" if name in _INSTEAD else "")
