r"""Decides whether a row is found by a search. The rules, which are the product's as well:

1. The query is a literal text (`%`, `_` and `\` too) that occurs somewhere in at least one text of at least one of the
   search types; without types, `id` is meant. Case does not matter. A missing text is never found.
2. What each type looks at is `Item.texts` of the table's module: `id` is ids and names, `input` and `output` are those
   columns, `content` is both, or the long texts of a table that has neither. A type that the table has no texts for is
   refused.
3. In `input`, `output` and `content` the query is also looked for with its non-ASCII characters spelt `\uXXXX` (UTF-16
   units, hexadecimal digits in any case), for JSON that was stored so. The query's own case decides which spelling.
4. An empty query is no search.
"""

from collections.abc import Sequence

from tests.oracle.values import Item, Refused

SEARCHED_ONLY_BY_ID = ("sessions", "dataset_run_items")
NO_INPUT = (*SEARCHED_ONLY_BY_ID, "scores", "audit_logs")


def check(table: str, types: Sequence[str]) -> None:
    """Raises Refused where a type is not for the table."""
    for kind in types:
        if (kind == "content" and table in SEARCHED_ONLY_BY_ID) or (kind in {"input", "output"} and table in NO_INPUT):
            raise Refused(f"{table} has nothing to search by {kind!r}")


def found(item: Item, query: str, types: Sequence[str]) -> bool:
    """Whether the row is found."""
    return any(_occurs(query, text, kind) for kind in types for text in item.texts[kind] if text is not None)


def _occurs(query: str, text: str, kind: str) -> bool:
    spellings = [query] if kind == "id" else [query, escaped(query)]
    return any(spelling.lower() in text.lower() for spelling in spellings)


def escaped(text: str) -> str:
    r"""The text with its non-ASCII characters as `\uXXXX`."""
    return "".join(character if character.isascii() else _units(character) for character in text)


def _units(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
