"""Generates observations and events: one for each of the first traces, and more observations for every second trace."""

from collections.abc import Iterator

from embedded.sample import awkward, sql, traces
from embedded.sample.sql import Plan

TYPES = ("GENERATION", "SPAN", "EVENT", "TOOL", "AGENT")
LEVELS = ("DEFAULT", "DEFAULT", "DEFAULT", "DEBUG", "WARNING", "ERROR")
MODELS = ("model-a", "model-b", "model-c")
# Both are limited because they are wide and slow to generate, and exports of traces only look up observations.
MAX_OBSERVED_TRACES = 100_000
MAX_EVENTS = 50_000


def statements(plan: Plan) -> Iterator[str]:
    """Yield the inserts into observations and events_full, including outdated and deleted versions."""
    for table, columns, count in (
        ("observations", _observation(plan), _observed(plan) + _observed(plan) // 2),
        ("events_full", _event(plan), min(plan.rows, MAX_EVENTS)),
    ):
        identity = "id" if table == "observations" else "span_id"
        older = {"event_ts": f"{_start(plan)} + INTERVAL 1 MINUTE"}
        yield sql.insert(table, columns, f"numbers({count})")
        yield sql.insert(
            table, {**columns, **older, "output": "'an outdated version'"}, f"numbers({count}) WHERE number % 20 = 3"
        )
        gone = {**columns, identity: sql.identifier("deleted")}
        yield sql.insert(table, {**gone, **older}, f"numbers({2 + count // 100})")
        yield sql.insert(table, {**gone, "is_deleted": "1"}, f"numbers({2 + count // 100})")


def first_of_trace(trace: str) -> str:
    """Return the expression of the ID of a trace's first observation."""
    return sql.identifier("observation", trace)


def _observed(plan: Plan) -> int:
    return min(plan.rows, MAX_OBSERVED_TRACES)


def _trace(plan: Plan) -> str:
    return f"(number % {_observed(plan)})"


def _start(plan: Plan) -> str:
    return f"({plan.trace_time(_trace(plan))} + INTERVAL 1 SECOND)"


def _common(plan: Plan) -> dict[str, str]:
    start = _start(plan)
    took = f"toIntervalMillisecond({plan.mixed('took')} % 20000)"
    generation = f"{plan.mixed('type')} % {len(TYPES)} = 0"
    tokens = f"toUInt64({plan.mixed('tokens')} % 4000)"
    usage = f"map('input', {tokens}, 'output', toUInt64(17), 'total', {tokens} + 17)"
    cost = ", ".join(
        f"'{name}', toDecimal64('{amount}', 12)"
        for name, amount in (("input", "0.000001234567"), ("output", "1.5"), ("total", "1.500001234567"))
    )
    return {
        "project_id": sql.literal(plan.project),
        "trace_id": sql.identifier("trace", _trace(plan)),
        "environment": plan.one_of(traces.ENVIRONMENTS, "environment"),
        "type": plan.one_of(TYPES, "type"),
        "start_time": start,
        "end_time": f"if({plan.mixed('open')} % 20 = 0, NULL, {start} + {took})",
        "name": sql.sometimes(awkward.NAMES, plan.one_of(traces.KINDS, "observation")),
        "level": plan.one_of(LEVELS, "level"),
        "completion_start_time": f"if({generation}, {start} + INTERVAL 250 MILLISECOND, NULL)",
        "prompt_version": f"if({plan.mixed('prompt')} % 3 = 0, toUInt16(1 + {plan.mixed('prompt')} % 9), NULL)",
        "usage_details": f"CAST({usage}, 'Map(LowCardinality(String), UInt64)')",
        "cost_details": f"CAST(map({cost}), 'Map(LowCardinality(String), Decimal64(12))')",
        "tool_calls": 'if(number % 7 = 0, [\'{"name":"search","arguments":"{\\\\"q\\\\":1}"}\'], [])',
        "tool_call_names": "if(number % 7 = 0, ['search'], [])",
        "created_at": start,
        "updated_at": f"{start} + INTERVAL 1 HOUR",
        "event_ts": f"{start} + INTERVAL 1 HOUR",
        "is_deleted": "0",
    }


def _observation(plan: Plan) -> dict[str, str]:
    return {
        **_common(plan),
        "id": first_of_trace("number"),
        "parent_observation_id": f"if(number < {_observed(plan)}, NULL, {first_of_trace(_trace(plan))})",
        "metadata": sql.metadata(plan),
        "status_message": sql.sometimes((None, *awkward.TEXTS), f"if({plan.mixed('level')} % 6 = 5, 'failed', NULL)"),
        "version": "if(number % 3 = 0, NULL, '2')",
        "input": sql.sometimes((None, *awkward.JSON_TEXTS), plan.words(0.2, "observation input"), shift=2),
        "output": sql.sometimes((None, *awkward.TEXTS), plan.words(0.1, "observation output"), shift=2),
        "provided_model_name": plan.one_of(MODELS, "model"),
        "internal_model_id": f"concat({plan.one_of(MODELS, 'model')}, '-id')",
        "model_parameters": """'{"temperature":0.7,"max_tokens":512}'""",
        "prompt_id": f"if({plan.mixed('prompt')} % 3 = 0, 'prompt-1', NULL)",
        "prompt_name": f"if({plan.mixed('prompt')} % 3 = 0, 'greeting, formal', NULL)",
        "total_cost": "toDecimal64('1.500001234567', 12)",
    }


def _event(plan: Plan) -> dict[str, str]:
    return {
        **_common(plan),
        "span_id": first_of_trace("number"),
        "parent_span_id": "''",
        "trace_name": plan.one_of(traces.KINDS, "name"),
        "user_id": f"concat('user-', toString({plan.mixed('user')} % 1000))",
        "session_id": sql.sometimes(("",), sql.identifier("session", f"number % {plan.sessions}")),
        "tags": sql.tags(plan),
        "is_app_root": "1",
        "status_message": sql.sometimes(awkward.TEXTS, "''"),
        "model_id": f"concat({plan.one_of(MODELS, 'model')}, '-id')",
        "provided_model_name": plan.one_of(MODELS, "model"),
        "model_parameters": """'{"temperature":0.7}'""",
        "input": sql.sometimes((*awkward.JSON_TEXTS, *awkward.TEXTS), plan.words(0.2, "event input")),
        "output": sql.sometimes(awkward.TEXTS, plan.words(0.1, "event output")),
        "metadata_names": "if(number % 5 = 0, [], ['source', 'a,b'])",
        "metadata_values": "if(number % 5 = 0, [], ['web', '{\"a\":\"\\\\u00e9\"}'])",
        "source": "'otel'",
        "service_name": "'sample'",
    }
