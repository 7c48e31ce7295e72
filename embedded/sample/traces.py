"""Generates traces: live ones, their outdated versions, and deleted ones."""

from collections.abc import Iterator

from embedded.sample import awkward, sql
from embedded.sample.sql import Plan

ENVIRONMENTS = ("default", "production", "staging")
KINDS = ("chat-completion", "rag-query", "summarise", "classify-ticket", "agent-run")
LONG = 65_536  # characters of the one long text in every thousand rows


def statements(plan: Plan) -> Iterator[str]:
    """Yield the inserts. Traces 0 to rows - 1 are live; `deleted-...` are deleted."""
    current = _columns(plan)
    stale = {**current, "output": "'an outdated version'", "tags": "['outdated']"}
    time = plan.trace_time()
    yield sql.insert("traces", current, f"numbers({plan.rows})")
    yield sql.insert("traces", {**stale, "event_ts": f"{time} + INTERVAL 1 MINUTE"}, _every(plan, 20, 3))
    # A version on another day has another sorting key, so neither a merge nor FINAL ever removes it.
    for days, remainder in ((-2, 7), (2, 9)):
        moved = {"timestamp": f"{time} + INTERVAL {days} DAY", "event_ts": f"{time} + INTERVAL 2 MINUTE"}
        yield sql.insert("traces", {**stale, **moved}, _every(plan, 50, remainder))
    gone = {**current, "id": sql.identifier("deleted")}
    source = f"numbers({2 + plan.rows // 100})"
    yield sql.insert("traces", {**gone, "event_ts": f"{time} + INTERVAL 1 MINUTE"}, source)
    moved_if_odd = f"{time} + toIntervalDay(number % 2)"
    yield sql.insert("traces", {**gone, "timestamp": moved_if_odd, "is_deleted": "1"}, source)


def _columns(plan: Plan) -> dict[str, str]:
    """Return the expression of each column of a live trace."""
    time = plan.trace_time()
    return {
        "id": sql.identifier("trace"),
        "timestamp": time,
        "name": sql.sometimes(awkward.NAMES, plan.one_of(KINDS, "name")),
        "user_id": sql.sometimes(
            (None, *awkward.NAMES), f"concat('user-', toString({plan.mixed('user')} % 1000))", shift=3
        ),
        "metadata": sql.metadata(plan),
        "release": f"if({plan.mixed('release')} % 3 = 0, NULL, concat('v1.', toString({plan.mixed('release')} % 20)))",
        "version": f"if({plan.mixed('version')} % 4 = 0, NULL, toString({plan.mixed('version')} % 9))",
        "project_id": sql.literal(plan.project),
        "environment": plan.one_of(ENVIRONMENTS, "environment"),
        "public": f"{plan.mixed('public')} % 10 = 0",
        "bookmarked": f"{plan.mixed('bookmarked')} % 20 = 0",
        "tags": sql.tags(plan),
        "input": sql.sometimes((None, *awkward.JSON_TEXTS, *awkward.TEXTS), _long_or(_input_json(plan))),
        "output": sql.sometimes((*awkward.TEXTS, *awkward.JSON_TEXTS, None), _output_text(plan), shift=1),
        "session_id": f"if(number % 3 = 0, NULL, {sql.identifier('session', f'intDiv(number, 10) % {plan.sessions}')})",
        "created_at": time,
        "updated_at": f"{time} + INTERVAL 1 HOUR",
        "event_ts": f"{time} + INTERVAL 1 HOUR",
        "is_deleted": "0",
    }


def _input_json(plan: Plan) -> str:
    """Return an expression for a chat request as JSON text, about half of the payload."""
    system = '{"role":"system","content":"You are a helpful assistant."}'
    return (
        f"""concat('{{"messages":[{system},{{"role":"user","content":"', """
        f"{plan.words(0.4, 'input')}, ' ', {plan.one_of(awkward.UNICODE, 'input')}, "
        f"""'"}}],"attachments":[{{"id":', toString({plan.mixed("attachment")}), ',"kind":"image","pages":[1,2,3]}}],"""
        f""""temperature":0.', toString({plan.mixed("temperature")} % 10), ',"stream":true,"stop":null}}')"""
    )


def _output_text(plan: Plan) -> str:
    """Return an expression for the output of a model: mostly JSON, some with escapes, sometimes plain text."""
    words = plan.words(0.3, "output")
    escaped = sql.literal(r"\u00fcber \u4f60\u597d C:\\users \n \"quoted\"")
    unicode = f"if({plan.mixed('escaped')} % 10 = 0, {escaped}, {plan.one_of(awkward.UNICODE, 'output')})"
    as_json = (
        f"""concat('{{"role":"assistant","content":"', {words}, ' ', {unicode}, '","usage":{{"input":', """
        f"""toString({plan.mixed("tokens")} % 4000), ',"output":', toString({plan.mixed("answer")} % 900), '}}}}')"""
    )
    return (
        f"if({plan.mixed('plain')} % 5 = 0, concat({words}, ' ', {plan.one_of(awkward.UNICODE, 'output')}), {as_json})"
    )


def _long_or(otherwise: str) -> str:
    return f"if(number % {sql.PERIOD} = {sql.PERIOD - 1}, repeat('long text, ', {LONG // 11}), {otherwise})"


def _every(plan: Plan, step: int, remainder: int) -> str:
    return f"numbers({plan.rows}) WHERE number % {step} = {remainder}"
