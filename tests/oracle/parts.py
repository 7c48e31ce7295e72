"""Works out the parts that several tables share: usage and cost sums, durations, scores, comments, traces by id."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from tests.oracle.latest import latest
from tests.oracle.raw import World
from tests.oracle.values import Json, Row, Score

SHOWN = ("NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT")
NUMERIC = ("NUMERIC", "BOOLEAN")

Amount = TypeVar("Amount", int, Decimal)


def containing(amounts: Mapping[str, Amount], word: str) -> Amount | None:
    """The sum of the values whose key contains the word, or None when no key does."""
    found = [amount for key, amount in amounts.items() if word in key]
    return sum(found[1:], found[0]) if found else None


def containing_in_any_case(amounts: Mapping[str, Amount], word: str) -> Amount | None:
    """The same for a word in any case, as it is where several observations are added up."""
    found = [amount for key, amount in amounts.items() if word in key.lower()]
    return sum(found[1:], found[0]) if found else None


def added(maps: Iterable[Mapping[str, Amount]]) -> dict[str, Amount]:
    """The maps added up key by key."""
    result: dict[str, Amount] = {}
    for amounts in maps:
        for key, amount in amounts.items():
            result[key] = result[key] + amount if key in result else amount
    return result


def usage_facts(
    usage: Mapping[str, int], cost: Mapping[str, Decimal], *, containing: Callable[[Any, str], Any] = containing
) -> dict[str, Any]:
    """What filters see of tokens and costs: sums are 0 where no key fits, a total is missing without one."""
    total = usage.get("total")
    return {
        "inputTokens": containing(usage, "input") or 0,
        "outputTokens": containing(usage, "output") or 0,
        "totalTokens": total,
        "tokens": total,
        "inputCost": containing(cost, "input") or Decimal(0),
        "outputCost": containing(cost, "output") or Decimal(0),
        "totalCost": cost.get("total"),
    }


def milliseconds(start: datetime, end: datetime | None) -> int | None:
    """The time that passed, cut towards zero to whole milliseconds."""
    if end is None:
        return None
    unit = timedelta(milliseconds=1)
    return (end - start) // unit if end >= start else -((start - end) // unit)


def seconds(start: datetime, end: datetime | None) -> Decimal | None:
    """The time that passed in seconds, to the millisecond."""
    passed = milliseconds(start, end)
    return None if passed is None else Decimal(passed) / 1000


def span(observations: Sequence[Row]) -> tuple[datetime, datetime] | None:
    """First start and last end; an observation without an end ends when it starts."""
    if not observations:
        return None
    starts = [row["start_time"] for row in observations]
    return min(starts), max(row["end_time"] or row["start_time"] for row in observations)


def back(instant: Any) -> int:
    """Sorts the latest instant first."""
    before: timedelta = datetime(1970, 1, 1, tzinfo=UTC) - instant
    return before // timedelta(microseconds=1)


def first_of(metadata: Mapping[str, str], *keys: str) -> str | None:
    """The value under the first of the keys that is there, be it empty."""
    return next((metadata[key] for key in keys if key in metadata), None)


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """The rows by a key, in order."""
    result: dict[Any, list[Row]] = {}
    for row in rows:
        result.setdefault(key(row), []).append(row)
    return result


def shown_scores(world: World, project_id: str, cutoff: datetime) -> list[Row]:
    """The scores that exports show: live, of a type that is shown, and not created after the cutoff."""
    rows = latest(world, "scores", project_id)
    return [row for row in rows if row["data_type"] in SHOWN and row["created_at"] <= cutoff]


def score_names(scores: Sequence[Row]) -> tuple[str, ...]:
    """The names that become columns, by code point: all of the project, whatever the scores are about."""
    return tuple(sorted({row["name"] for row in scores}))


def values_of(scores: Sequence[Row], *, apart: str | None = None) -> tuple[Score, ...]:
    """The values of one object's scores: one for each name, type, text, execution, and value of the column `apart`.

    A number is the average of its group. A text is `string_value`, or without one the group's greatest
    `long_string_value` that is not empty; else there is no value.
    """

    def group(row: Row) -> tuple[Any, ...]:
        same = (row["name"], row["data_type"], row["string_value"], row["execution_trace_id"])
        return (*same, row[apart] if apart else None)

    result = []
    for (name, data_type, text, *_), rows in grouped(scores, group).items():
        if data_type in NUMERIC:
            result.append(Score(name, data_type, sum(row["value"] for row in rows) / len(rows)))
        elif text is not None:
            result.append(Score(name, data_type, text))
        elif long_text := max(row["long_string_value"] for row in rows):
            result.append(Score(name, data_type, long_text))
    return tuple(result)


def score_facts(
    scores: tuple[Score, ...], prefix: str = "", *, categories: Sequence[str] = ("CATEGORICAL", "TEXT")
) -> dict[str, Any]:
    """What score filters see; `scores` itself takes any of them. `categories` are the types with a category."""
    return {
        f"{prefix}scores_avg": tuple(score for score in scores if score.data_type in NUMERIC),
        f"{prefix}score_categories": tuple(score for score in scores if score.data_type in categories),
        f"{prefix}score_booleans": tuple(score for score in scores if score.data_type == "BOOLEAN"),
    }


def comments(world: World, project_id: str, object_type: str) -> dict[str, list[Row]]:
    """The comments by object id, oldest first."""
    rows = [row for row in world.of("comments", project_id) if row["object_type"] == object_type]
    return grouped(sorted(rows, key=lambda row: (row["created_at"], row["id"])), lambda row: row["object_id"])


def comment_cell(world: World, rows: Sequence[Row]) -> Json:
    """The comments as the file shows them."""
    emails = {user["id"]: user["email"] for user in world.tables["users"]}
    return Json(
        [
            {
                "id": row["id"],
                "content": row["content"],
                "author_email": emails.get(row["author_user_id"]),
                "created_at": f"{row['created_at']:%Y-%m-%dT%H:%M:%S}.{row['created_at'].microsecond // 1000:03}Z",
            }
            for row in rows
        ]
    )


def comment_facts(rows: Sequence[Row]) -> dict[str, Any]:
    """What comment filters see: no comments count 0."""
    return {"commentCount": len(rows), "commentContent": [row["content"] for row in rows]}
