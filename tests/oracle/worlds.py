"""Makes small random worlds: raw rows for all tables, in several projects that share all their ids.

A world depends on its seed and size alone. Rows come in up to three versions, on different days and of different types
and names; some are deleted by their last version, some come back. No two versions share an event_ts.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from tests.oracle import pools
from tests.oracle.pools import CUTOFF, EVENTS_ONLY, PROJECTS, later, maybe, metadata, payload, text
from tests.oracle.worlds_sql import sql_rows

Rows = list[dict[str, Any]]


def make(seed: int, size: int = 30) -> dict[str, Rows]:
    """The rows of a world by table; about `size` rows a table and project before versions."""
    world = Maker(Random(seed), size)
    tables: dict[str, Rows] = {}
    for project in PROJECTS:
        made = {
            "traces": [] if project == EVENTS_ONLY else world.versions(project, world.trace_ids, world.trace),
            "observations": []
            if project == EVENTS_ONLY
            else world.versions(project, world.span_ids, world.observation),
            "scores": world.versions(project, [f"s{n}" for n in range(size * 2)], world.score),
            "events_full": world.versions(project, world.span_ids, world.event, "span_id"),
            "dataset_run_items_rmt": world.versions(project, [f"ri{n}" for n in range(size // 2)], world.run_item),
            **sql_rows(world.random, project, size, world.trace_ids, world.span_ids, world.session_ids),
        }
        for table, rows in made.items():
            tables.setdefault(table, []).extend(rows)
    for rows in tables.values():
        world.random.shuffle(rows)
    return tables


class Maker:
    """Makes rows of the ClickHouse tables; all projects get theirs from the same ids."""

    def __init__(self, random: Random, size: int) -> None:
        self.random = random
        self.trace_ids = [*random.sample(pools.AWKWARD_IDS, 3), *(f"t{n}" for n in range(size))]
        self.span_ids = [*random.sample(pools.AWKWARD_IDS, 3), *(f"o{n}" for n in range(size))]
        self.session_ids = [*random.sample(pools.AWKWARD_IDS, 2), *(f"se{n}" for n in range(max(2, size // 4)))]
        self._ticks = count(1)

    def versions(
        self, project: str, ids: list[str], make_row: Callable[[str, str], dict[str, Any]], identity: str = "id"
    ) -> Rows:
        """Rows for most of the ids, in versions; a later one is made anew, or repeats the one before."""
        rows: Rows = []
        for id_ in ids:
            if self.random.random() < 0.15:
                continue
            row = make_row(project, id_)
            for _ in range(self.random.choice((1, 1, 2, 3))):
                row = self.random.choice((row, make_row(project, id_)))
                stamp = CUTOFF - timedelta(days=1) + timedelta(milliseconds=next(self._ticks))
                stamped = {"event_ts": stamp, "is_deleted": int(self.random.random() < 0.15)}
                rows.append({**row, **stamped, "project_id": project, identity: id_})
        if rows:  # a project without a living row is another case, tested by itself
            rows.append({**rows[-1], "event_ts": CUTOFF + timedelta(milliseconds=next(self._ticks)), "is_deleted": 0})
        return rows

    def _instant(self, *, micros: bool = False) -> datetime:
        return pools.instant(self.random, micros=micros)

    def _tags(self) -> list[str]:
        return self.random.sample(pools.TAGS, self.random.randrange(4))

    def _usage(self) -> dict[str, int]:
        keys = self.random.sample(pools.USAGE_KEYS, self.random.randrange(4))
        return {key: self.random.choice(pools.COUNTS) for key in keys}

    def _cost(self) -> dict[str, Any]:
        keys = self.random.sample(pools.USAGE_KEYS, self.random.randrange(4))
        return {key: self.random.choice(pools.COSTS) for key in keys}

    def trace(self, _project: str, _id: str) -> dict[str, Any]:
        """A row of `traces`."""
        return {
            "timestamp": self._instant(),
            "name": text(self.random),
            "user_id": maybe(self.random, self.random.choice(("u1", "u2", "ü"))),
            "metadata": metadata(self.random),
            "release": maybe(self.random, "r1"),
            "version": maybe(self.random, text(self.random)),
            "environment": self.random.choice(("default", "prod")),
            "public": self.random.random() < 0.5,
            "bookmarked": self.random.random() < 0.5,
            "tags": self._tags(),
            "input": maybe(self.random, payload(self.random)),
            "output": maybe(self.random, payload(self.random)),
            "session_id": maybe(self.random, self.random.choice(self.session_ids)),
            "created_at": self._instant(),
            "updated_at": self._instant(),
        }

    def observation(self, _project: str, id_: str) -> dict[str, Any]:
        """A row of `observations`."""
        return self._span(id_, self._instant(), micros=False) | {
            "metadata": metadata(self.random),
            "internal_model_id": maybe(self.random, self.random.choice(pools.MODELS)),
            **{
                name: maybe(self.random, value)
                for name, value in {
                    "parent_observation_id": self.random.choice(self.span_ids),
                    "status_message": text(self.random),
                    "version": text(self.random),
                    "input": payload(self.random),
                    "output": payload(self.random),
                    "provided_model_name": self.random.choice(("gpt", "GPT", "数")),
                    "model_parameters": self.random.choice(pools.JSON_TEXTS),
                    "prompt_id": "pr1",
                    "prompt_name": text(self.random),
                }.items()
            },
        }

    def _span(self, id_: str, start: datetime, *, micros: bool) -> dict[str, Any]:
        # A span stays in its trace, as applications write it.
        trace_id = self.trace_ids[self.span_ids.index(id_) // 2 % len(self.trace_ids)]
        return {
            "trace_id": trace_id,
            "environment": self.random.choice(("default", "prod")),
            "type": self.random.choice(pools.TYPES),
            "start_time": start,
            "end_time": later(self.random, start, micros=micros),
            "completion_start_time": later(self.random, start, micros=micros),
            "name": text(self.random),
            "level": self.random.choice(pools.LEVELS),
            "provided_usage_details": {**self._usage(), "big": 2**64 - 1},
            "usage_details": self._usage(),
            "provided_cost_details": self._cost(),
            "cost_details": self._cost(),
            "prompt_version": self.random.choice((None, 0, 3, 65_535)),
            "created_at": self._instant(micros=micros),
            "updated_at": self._instant(micros=micros),
            "usage_pricing_tier_id": maybe(self.random, "tier"),
            "usage_pricing_tier_name": maybe(self.random, "Tier"),
            "tool_definitions": {key: payload(self.random) for key in self.random.sample(pools.KEYS, 2)[:1]},
            "tool_calls": [text(self.random) for _ in range(self.random.randrange(3))],
            "tool_call_names": self._tags(),
        }

    def event(self, _project: str, id_: str) -> dict[str, Any]:
        """A row of `events_full`."""
        pairs = metadata(self.random)
        return self._span(id_, self._instant(micros=True), micros=True) | {
            "parent_span_id": self.random.choice(("", "", self.random.choice(self.span_ids))),
            "is_app_root": self.random.random() < 0.2,
            "bookmarked": self.random.random() < 0.5,
            "public": self.random.random() < 0.2,
            "tags": self._tags(),
            "metadata_names": list(pairs),
            "metadata_values": list(pairs.values()),
            "experiment_item_root_span_id": self.random.choice((id_, "", "o1")),
            "source": self.random.choice(("api", "otel", "")),
            **{
                name: self.random.choice((value, value, ""))
                for name, value in {
                    "version": text(self.random),
                    "release": "r1",
                    "trace_name": text(self.random),
                    "user_id": self.random.choice(("u1", "u2", "ü")),
                    "session_id": self.random.choice(self.session_ids),
                    "status_message": text(self.random),
                    "prompt_id": "pr1",
                    "prompt_name": text(self.random),
                    "model_id": self.random.choice(pools.MODELS),
                    "provided_model_name": self.random.choice(("gpt", "GPT", "数")),
                    "model_parameters": self.random.choice(pools.JSON_TEXTS),
                    "input": payload(self.random),
                    "output": payload(self.random),
                    "experiment_id": "e1",
                    "experiment_name": text(self.random),
                    "experiment_dataset_id": "d1",
                    "ingestion_api_key": "pk-1",
                    "ingestion_sdk_name": "python",
                    "ingestion_sdk_version": "4.0",
                }.items()
            },
        }

    def score(self, _project: str, id_: str) -> dict[str, Any]:
        """A row of `scores`; extreme numbers are each a group of their own."""
        name = self.random.choice(pools.SCORE_NAMES)
        data_type = self.random.choice(("NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"))
        if name == "extreme":
            data_type = "NUMERIC"
        elif name != "mixed":  # a name has one type, but for one
            data_type = ("NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT")[len(name) % 4]
        truth = self.random.randrange(2)
        texts = {
            "BOOLEAN": "True" if truth else "False",
            "CATEGORICAL": maybe(self.random, self.random.choice(pools.CATEGORIES)),
            "TEXT": maybe(self.random, text(self.random)),
        }
        numbers = pools.EXTREMES if name == "extreme" else pools.NUMBERS
        return {
            "timestamp": self._instant(),
            "environment": self.random.choice(("default", "prod")),
            **self._target(),
            "name": name,
            "value": float(truth) if data_type == "BOOLEAN" else self.random.choice(numbers),
            "source": self.random.choice(("API", "EVAL", "ANNOTATION")),
            "comment": maybe(self.random, text(self.random)),
            "metadata": metadata(self.random),
            "author_user_id": self.random.choice((None, "user-1", "user-2", "user-gone")),
            "data_type": data_type,
            "string_value": texts.get(data_type),
            "created_at": self._instant(),
            "updated_at": self._instant(),
            "execution_trace_id": id_ if name == "extreme" else self.random.choice((None, None, "x1")),
            "long_string_value": text(self.random) if data_type in {"CORRECTION", "TEXT"} else "",
        }

    def _target(self) -> dict[str, str | None]:
        kind = self.random.choice(("trace", "trace", "observation", "observation", "session", "run"))
        index = self.random.randrange(len(self.span_ids))
        trace_id = self.trace_ids[index // 2 % len(self.trace_ids)]
        return {
            "trace_id": trace_id if kind in {"trace", "observation"} else None,
            "observation_id": self.span_ids[index] if kind == "observation" else None,
            "session_id": self.random.choice(self.session_ids) if kind == "session" else None,
            "dataset_run_id": "run1" if kind == "run" else None,
        }

    def run_item(self, _project: str, id_: str) -> dict[str, Any]:
        """A row of `dataset_run_items_rmt`; an item stays in its run."""
        number = int(id_[2:])
        return {
            "dataset_run_id": f"run{number % 3}",
            "dataset_item_id": f"i{self.random.randrange(5)}",
            "dataset_id": f"d{number % 2 * 3}",
            "trace_id": self.random.choice(self.trace_ids),
            "observation_id": maybe(self.random, self.random.choice(self.span_ids)),
            "error": maybe(self.random, "error"),
            "created_at": self._instant(),
            "updated_at": self._instant(),
            "dataset_run_name": text(self.random),
            "dataset_run_metadata": {},
            "dataset_run_created_at": self._instant(),
            "dataset_item_metadata": {},
        }
