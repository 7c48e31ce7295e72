"""Finds the keys of a stored query that Waybill does not know, and lists them for people and events."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from pipeline.request import ExportQuery

MAX_LISTED = 10
MAX_NAME = 100


def find_ignored_keys(query: ExportQuery, stored: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the places of the keys in a stored query that were ignored when it was read: `filter[0].colour`.

    `stored` is the JSON that `query` was read from. The names can be stored in any database: they contain no NUL and no
    lone surrogates.
    """
    parts: list[tuple[str, BaseModel, Mapping[str, Any]]] = [("", query, stored)]
    filters = zip(query.filter or (), stored.get("filter") or (), strict=True)
    parts += [(f"filter[{index}].", read, given) for index, (read, given) in enumerate(filters)]
    if query.order_by is not None:
        parts.append(("orderBy.", query.order_by, stored["orderBy"]))
    return tuple(f"{place}{_clean(key)}" for place, read, given in parts for key in given if not _is_known(read, key))


def shorten_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return at most MAX_LISTED names of at most MAX_NAME characters each."""
    return tuple(each if len(each) <= MAX_NAME else f"{each[: MAX_NAME - 1]}…" for each in names[:MAX_LISTED])


def describe_names(names: Sequence[str]) -> str | None:
    """Return the names as one short text, which says how many more there are; None without names."""
    if not names:
        return None
    more = len(names) - MAX_LISTED
    return ", ".join(shorten_names(names)) + (f" and {more:,} more" if more > 0 else "")


def _is_known(read: BaseModel, key: str) -> bool:
    return any(field.alias == key for field in type(read).model_fields.values())


def _clean(key: str) -> str:
    return key.replace("\0", "").encode(errors="replace").decode()
