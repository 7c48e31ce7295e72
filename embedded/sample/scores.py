"""Generates scores of every data type on traces, observations, sessions and runs, with outdated and deleted ones."""

from collections.abc import Iterator
from dataclasses import dataclass

from embedded.sample import awkward, observations, sql, traces
from embedded.sample.sql import Plan

SOURCES = ("API", "EVAL", "ANNOTATION")
CATEGORIES = ("positive", "neutral", "negative", "with,comma", "with:colon", 'with"quote', "日本語", "=1+1", "")
NUMBERS = ("0.1 + 0.2", "1", "-0.5", "0", "1e-7", "1e21", "123456789.125", "0.333333333333333333")


@dataclass(frozen=True)
class Kind:
    """The name and data type of a score; a name may have several types."""

    name: str
    data_type: str


KINDS = (
    Kind("accuracy", "NUMERIC"),
    Kind("relevance", "NUMERIC"),
    Kind("hallucinated", "BOOLEAN"),
    Kind("sentiment", "CATEGORICAL"),
    Kind("feedback", "TEXT"),
    Kind("expected", "CORRECTION"),
    Kind("id", "NUMERIC"),
    Kind("input", "CATEGORICAL"),
    Kind("10", "NUMERIC"),
    Kind('a,b"c', "BOOLEAN"),
    Kind("😀", "CATEGORICAL"),
    Kind("=1+1", "NUMERIC"),
    Kind("mixed", "NUMERIC"),
    Kind("mixed", "CATEGORICAL"),
    Kind("comments", "TEXT"),
)


def statements(plan: Plan) -> Iterator[str]:
    """Yield the inserts: about one live score for each trace, several on some and none on others."""
    current = _columns(plan)
    older = {"event_ts": f"{_time(plan)} + INTERVAL 1 MINUTE"}
    stale = {**current, **older, "value": "1000", "comment": "'an outdated version'"}
    yield sql.insert("scores", current, f"numbers({plan.rows})")
    yield sql.insert("scores", stale, f"numbers({plan.rows}) WHERE number % 20 = 3")
    moved = {"timestamp": f"{_time(plan)} - INTERVAL 2 DAY"}
    yield sql.insert("scores", {**stale, **moved}, f"numbers({plan.rows}) WHERE number % 50 = 7")
    gone = {**current, "id": sql.identifier("deleted-score")}
    source = f"numbers({2 + plan.rows // 100})"
    yield sql.insert("scores", {**gone, **older}, source)
    yield sql.insert("scores", {**gone, "is_deleted": "1"}, source)


def _columns(plan: Plan) -> dict[str, str]:
    # Two consecutive scores share a trace; in every fifth pair both have the same name.
    kind = f"{plan.mixed('kind', 'if(number % 10 < 2, intDiv(number, 10), number + 1000000000)')} % {len(KINDS)}"
    data_type = f"{sql.texts([each.data_type for each in KINDS])}[1 + {kind}]"
    boolean = f"{plan.mixed('true')} % 2"
    category = plan.one_of(CATEGORIES, "category")
    feedback = plan.one_of(awkward.TEXTS, "feedback")
    author = plan.mixed("author")
    time = _time(plan)
    return {
        "id": sql.identifier("score"),
        "timestamp": time,
        "project_id": sql.literal(plan.project),
        "environment": plan.one_of(traces.ENVIRONMENTS, "score environment"),
        "trace_id": f"if(number % 50 IN (48, 49), NULL, {sql.identifier('trace', _trace(plan))})",
        "session_id": f"if(number % 50 = 48, {sql.identifier('session', f'number % {plan.sessions}')}, NULL)",
        "dataset_run_id": "if(number % 50 = 49, 'run-0', NULL)",
        "observation_id": f"if(number % 3 = 0 AND number % 50 < 48, {observations.first_of_trace(_trace(plan))}, NULL)",
        "name": f"{sql.texts([each.name for each in KINDS])}[1 + {kind}]",
        "value": f"multiIf({data_type} = 'NUMERIC', {_number(plan)}, {data_type} = 'BOOLEAN', toFloat64({boolean}), 0)",
        "source": plan.one_of(SOURCES, "source"),
        "comment": sql.sometimes((None, *awkward.TEXTS), f"if(number % 5 = 0, {plan.words(0.1, 'comment')}, NULL)"),
        "metadata": "CAST(if(number % 4 = 0, map('judge', 'model-a', 'json', '{\"steps\":[1,2]}'), map()),"
        " 'Map(LowCardinality(String), String)')",
        "author_user_id": f"if({author} % 2 = 0, NULL, concat('user-', toString({author} % 20)))",
        "data_type": data_type,
        "string_value": f"multiIf({data_type} = 'BOOLEAN', if({boolean} = 1, 'True', 'False'),"
        f" {data_type} = 'CATEGORICAL', {category}, {data_type} = 'TEXT', {feedback}, NULL)",
        "created_at": time,
        "updated_at": f"{time} + INTERVAL 1 HOUR",
        "event_ts": f"{time} + INTERVAL 1 HOUR",
        "is_deleted": "0",
        "long_string_value": f"if({data_type} = 'CORRECTION', {plan.words(0.2, 'correction')}, '')",
    }


def _trace(plan: Plan) -> str:
    """Return the expression of the trace's number, which two consecutive scores share."""
    return f"(sipHash64({plan.seed}, {plan.number}, intDiv(number, 2), 'trace') % {plan.rows})"


def _time(plan: Plan) -> str:
    return f"({plan.trace_time(_trace(plan))} + INTERVAL 5 SECOND)"


def _number(plan: Plan) -> str:
    exact = "[" + ", ".join(f"toFloat64({number})" for number in NUMBERS) + "]"
    random = f"round({plan.mixed('score')} % 1000 / 1000, 3)"
    return f"if(number % 10 = 0, {exact}[1 + {plan.mixed('exact')} % {len(NUMBERS)}], {random})"
