"""Hypothesis strategies for stored queries that are made to hit: most values are drawn from the rows themselves."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from hypothesis import strategies as st

from tests.oracle import search
from tests.oracle.columns import ACCEPTED, FULL_TEXT, Column, columns_of
from tests.oracle.filters import MATCHED, words
from tests.oracle.order import TIMES
from tests.oracle.pools import CUTOFF, JSON_TEXTS, KEYS, SCORE_NAMES, TEXTS, WORDS
from tests.oracle.values import Refused, Score, Table

Strategy = st.SearchStrategy[Any]

TEXT_OPERATORS = ("=", "contains", "does not contain", "starts with", "ends with")
NUMBER_OPERATORS = ("=", ">", "<", ">=", "<=")
OPTIONS = ("any of", "none of")
JUNK = st.sampled_from((*TEXTS, *WORDS, *JSON_TEXTS, "alpha", "no such value"))


def queries(table: Table, *, use_events_table: bool = False) -> Strategy:
    """Valid stored queries for a table: up to three filters, now and then a search, an order."""
    asked = st.fixed_dictionaries(
        {
            "tableName": st.just(table.name),
            "filter": st.none() | st.lists(filters(table), min_size=1, max_size=3),
            "orderBy": st.none() | orders(table.listing),
            "useEventsTable": st.just(use_events_table),
        }
    )
    return st.tuples(asked, searches(table)).map(lambda pair: {**pair[0], **pair[1]})


def columns(table: Table) -> Strategy:
    """Some of a file's columns in any order: the table's own, single scores, or all scores."""
    own = list(table.columns)
    scores = [f"scores.{name}" for name in table.score_names]
    single = st.lists(st.sampled_from([*own, *scores]), min_size=1, max_size=6, unique=True)
    if not scores:
        return single
    all_scores = st.lists(st.sampled_from([*own, "scores"]), min_size=1, max_size=4, unique=True)
    return single | all_scores


def orders(table: str) -> Strategy:
    """Any sortable column by id or name, in both directions."""
    sortable = [name for column in columns_of(table).values() if column.sortable for name in (column.id, *column.names)]
    named = st.sampled_from((*sortable, *TIMES))
    return st.fixed_dictionaries({"column": named, "order": st.sampled_from(("ASC", "DESC"))})


def searches(table: Table) -> Strategy:
    """No search, mostly, or one for a piece of a text that is there."""
    types = [kind for kind in ("id", "content", "input", "output") if _searchable(table.name, kind)]
    pool = _usable([text for item in table.items for kind in item.texts for text in item.texts[kind]])
    # The white space and escapes of stored JSON documents are not promised: only plain words are looked for.
    words_only = table.name == "dataset_items"
    wanted = st.sampled_from(("alpha", "BETA", "数据", "i1", "t3", "zz")) if words_only else _pieces(pool) | JUNK
    chosen = st.lists(st.sampled_from(types), min_size=1, max_size=len(types), unique=True)
    some = st.fixed_dictionaries({"searchQuery": wanted}, optional={"searchType": chosen})
    return st.one_of(st.just({}), st.just({}), some)


def _searchable(table: str, kind: str) -> bool:
    try:
        search.check(table, [kind])
    except Refused:
        return False
    return True


def _usable(values: Sequence[Any]) -> list[str]:
    """The texts among values, without those that were not UTF-8: for the server they are another text."""
    return [value for value in values if isinstance(value, str) and "\ufffd" not in value]


def filters(table: Table) -> Strategy:
    """A filter of any type and operator on any column of the table, by id or name."""
    pairs = [(column, kind) for column in columns_of(table.listing).values() for kind in sorted(ACCEPTED[column.type])]
    # What rows are made of depends on filters on these columns, so they are asked for more often.
    pairs += [pair for pair in pairs if pair[0].id in table.asked for _ in range(5)]
    # Made when first drawn, and once: making them costs more than drawing from them.
    made = cache(lambda column, kind: _filter(table, column, kind))
    return st.sampled_from(pairs).flatmap(lambda pair: made(*pair))


def _filter(table: Table, column: Column, kind: str) -> Strategy:
    facts = [item.facts.get(column.id) for item in table.items] + list(table.asked.get(column.id, ()))
    if table.name == "dataset_items" and kind == "stringObject":
        facts = [[_scalars(metadata) for metadata in fact or ()] for fact in facts]
    fields = _FIELDS[kind](facts)
    if kind in {"string", "stringObject"} and table.listing in FULL_TEXT and column.id in MATCHED:
        fields = fields | _matches(facts, keyed=kind == "stringObject")
    named = st.sampled_from((column.id, *column.names))
    return st.tuples(named, fields).map(lambda pair: {"column": pair[0], "type": kind, **pair[1]})


def _scalars(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata without objects and lists, whose white space is not promised."""
    return {key: value for key, value in metadata.items() if not value.startswith(("{", "["))}


def _pieces(pool: Sequence[str]) -> Strategy:
    """Texts of a pool: whole, or a piece from their beginning, middle or end, at times in another case."""
    if not pool:
        return JUNK

    def piece(drawn: tuple[str, int, int, bool]) -> str:
        text, start, length, swapped = drawn
        start = start % (len(text) + 1)
        found = text[start : start + length] if length else text
        return found.swapcase() if swapped and found.isascii() else found

    swapped = st.sampled_from((False, False, False, True))
    lengths = st.sampled_from((0, 0, 1, 2, 5, 12))
    return st.tuples(st.sampled_from(pool), st.sampled_from((0, 0, 1, 3, 7)), lengths, swapped).map(piece)


def _texts(facts: Sequence[Any]) -> list[str]:
    """The texts among facts: scalars, lists, metadata values, scores as `name:value`."""
    found: list[Any] = []
    for fact in facts:
        for value in fact if isinstance(fact, list | tuple) else [fact]:
            if isinstance(value, dict):
                found += value.values()
            elif isinstance(value, Score):
                found.append(f"{value.name}:{value.value}")
            else:
                found.append(value)
    return _usable(found)


def _string(facts: Sequence[Any]) -> Strategy:
    value = st.one_of(_pieces(_texts(facts)), _pieces(_texts(facts)), JUNK)
    return st.fixed_dictionaries({"operator": st.sampled_from(TEXT_OPERATORS), "value": value})


def _string_object(facts: Sequence[Any]) -> Strategy:
    keys = [key for fact in facts for metadata in fact or [] for key in metadata]
    key = st.sampled_from(keys or KEYS) | st.sampled_from((*KEYS, "no such key"))
    return st.tuples(_string(facts), key).map(lambda pair: {**pair[0], "key": pair[1]})


def _matches(facts: Sequence[Any], *, keyed: bool) -> Strategy:
    """Some words of a text, in any order."""
    pools = [sorted(words(text)) for text in _texts(facts) if words(text)] or [["alpha"]]
    some = st.sampled_from(pools).flatmap(lambda pool: st.lists(st.sampled_from(pool), min_size=1, max_size=3))
    value = some.map(" ".join) | some.map("-".join).map(str.upper).filter(str.isascii) | st.just("alpha nowhere")
    fields = {"operator": st.just("matches"), "value": value}
    return st.fixed_dictionaries({**fields, "key": st.sampled_from(KEYS)} if keyed else fields)


def _options(facts: Sequence[Any], operators: Sequence[str], *, smallest: int = 1) -> Strategy:
    pool = _texts(facts)
    value = st.lists((st.sampled_from(pool) if pool else JUNK) | JUNK, min_size=smallest, max_size=4)
    return st.fixed_dictionaries({"operator": st.sampled_from(operators), "value": value})


def _array_options(facts: Sequence[Any]) -> Strategy:
    any_of = _options(facts, ("any of",))
    return any_of | _options(facts, ("none of", "all of"), smallest=0)


def _score_names(facts: Sequence[Any]) -> Strategy:
    names = [score.name for fact in facts for score in fact or ()]
    return st.sampled_from(names or SCORE_NAMES) | st.sampled_from((*SCORE_NAMES, "no such name"))


def _category_options(facts: Sequence[Any]) -> Strategy:
    values = [str(score.value) for fact in facts for score in fact or ()]
    value = st.lists(st.sampled_from(values or ["good"]) | JUNK, max_size=3)
    fields = {"operator": st.sampled_from(OPTIONS), "value": value, "key": _score_names(facts)}
    return st.fixed_dictionaries(fields)


def _numbers(facts: Sequence[Any]) -> Strategy:
    """Numbers that JSON can write and that are there, or just beside them."""
    found = [score.value for fact in facts if isinstance(fact, tuple) for score in fact]
    found += [fact for fact in facts if isinstance(fact, int | float | Decimal)]
    pool = [number for number in map(_as_json, found) if number is not None] or [0]
    there = st.sampled_from(pool)
    return st.one_of(there, there, there.map(lambda number: number + 1), st.sampled_from((0, -1, 0.5, 1e30, 2**53 + 1)))


def _as_json(number: Any) -> float | None:
    """The number as a stored query can hold it, or None."""
    if isinstance(number, int):
        return number
    if isinstance(number, Decimal):
        number = float(number)
    return float(number) if abs(number) < 1e300 else None


def _number(facts: Sequence[Any]) -> Strategy:
    return st.fixed_dictionaries({"operator": st.sampled_from(NUMBER_OPERATORS), "value": _numbers(facts)})


def _number_object(facts: Sequence[Any]) -> Strategy:
    return st.tuples(_number(facts), _score_names(facts)).map(lambda pair: {**pair[0], "key": pair[1]})


def _boolean(_facts: Sequence[Any]) -> Strategy:
    return st.fixed_dictionaries({"operator": st.sampled_from(("=", "<>")), "value": st.booleans()})


def _boolean_object(facts: Sequence[Any]) -> Strategy:
    return st.tuples(_boolean(facts), _score_names(facts)).map(lambda pair: {**pair[0], "key": pair[1]})


def _datetime(facts: Sequence[Any]) -> Strategy:
    pool = [fact for fact in facts if isinstance(fact, datetime)] or [CUTOFF]
    beside = st.sampled_from((0, 0, 1, -1, 500)).map(lambda micros: timedelta(microseconds=micros))
    value = st.tuples(st.sampled_from(pool), beside).map(lambda pair: _written(pair[0] + pair[1]))
    return st.fixed_dictionaries({"operator": st.sampled_from((">", "<", ">=", "<=")), "value": value})


def _written(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%S.%fZ}"


def _null(_facts: Sequence[Any]) -> Strategy:
    return st.fixed_dictionaries({"operator": st.sampled_from(("is null", "is not null")), "value": st.just("")})


def _position(_facts: Sequence[Any]) -> Strategy:
    plain = st.fixed_dictionaries({"operator": st.just("="), "key": st.sampled_from(("root", "first", "last"))})
    nth = {"operator": st.just("="), "key": st.sampled_from(("nthFromStart", "nthFromEnd")), "value": st.integers(1, 3)}
    return plain | st.fixed_dictionaries(nth)


_FIELDS = {
    "string": _string,
    "stringOptions": lambda facts: _options(facts, OPTIONS),
    "stringObject": _string_object,
    "arrayOptions": _array_options,
    "categoryOptions": _category_options,
    "number": _number,
    "numberObject": _number_object,
    "boolean": _boolean,
    "booleanObject": _boolean_object,
    "datetime": _datetime,
    "null": _null,
    "positionInTrace": _position,
}
