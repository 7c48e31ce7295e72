"""Generates dataset run items: two runs over every item of the sample datasets."""

from collections.abc import Iterator

from embedded.sample import sql
from embedded.sample.database import DATASETS, ITEMS
from embedded.sample.sql import Plan

RUNS = 2


def statements(plan: Plan) -> Iterator[str]:
    """Yield the inserts, including outdated and deleted versions."""
    current = _columns(plan)
    older = {"event_ts": f"{_time(plan)} + INTERVAL 1 MINUTE"}
    everything = f"numbers({RUNS * ITEMS})"
    yield sql.insert("dataset_run_items_rmt", current, everything)
    yield sql.insert(
        "dataset_run_items_rmt", {**current, **older, "error": "'outdated'"}, f"{everything} WHERE number % 5 = 3"
    )
    gone = {**current, "id": sql.identifier("deleted"), "dataset_item_id": sql.identifier("deleted-item")}
    yield sql.insert("dataset_run_items_rmt", {**gone, **older}, "numbers(3)")
    yield sql.insert("dataset_run_items_rmt", {**gone, "is_deleted": "1"}, "numbers(3)")


def _time(plan: Plan) -> str:
    return plan.trace_time(f"(number % {plan.rows})")


def _columns(plan: Plan) -> dict[str, str]:
    item = f"(number % {ITEMS})"
    run = f"intDiv(number, {ITEMS})"
    time = _time(plan)
    return {
        "id": sql.identifier("run-item"),
        "project_id": sql.literal(plan.project),
        "dataset_run_id": f"concat('run-', toString({run}))",
        "dataset_item_id": sql.identifier("item", item),
        "dataset_id": f"concat('dataset-', toString({item} % {DATASETS}))",
        "trace_id": sql.identifier("trace", f"number % {plan.rows}"),
        "observation_id": f"if(number % 2 = 0, NULL, {sql.identifier('observation', f'number % {plan.rows}')})",
        "error": "if(number % 10 = 9, 'timeout, after 30 s', NULL)",
        "created_at": time,
        "updated_at": f"{time} + INTERVAL 1 HOUR",
        "dataset_run_name": f"concat('run, number ', toString({run}))",
        "dataset_run_metadata": "CAST(map('model', 'model-a'), 'Map(LowCardinality(String), String)')",
        "dataset_run_created_at": time,
        "dataset_item_input": """'{"question":"\\\\u00fc?"}'""",
        "event_ts": f"{time} + INTERVAL 1 HOUR",
        "is_deleted": "0",
    }
