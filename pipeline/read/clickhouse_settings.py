"""Chooses the settings of statements: those that the rows depend on, and others as far as the user may set them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from config.errors import Rejected

SPILL_BYTES = 1 << 30
_OVERFLOWS = (
    *("read_overflow_mode", "read_overflow_mode_leaf", "group_by_overflow_mode", "sort_overflow_mode"),
    *("result_overflow_mode", "timeout_overflow_mode", "timeout_overflow_mode_leaf", "set_overflow_mode"),
    *("join_overflow_mode", "transfer_overflow_mode", "distinct_overflow_mode"),
)

REQUIRED: dict[str, object] = {
    # With any other value, a limit of the user's profile silently cuts the rows.
    **dict.fromkeys(_OVERFLOWS, "throw"),
    "limit": 0,
    "offset": 0,
    # Filters must see the latest versions only, so no row may be skipped before FINAL has merged.
    "optimize_move_to_prewhere_if_final": 0,
    "use_skip_indexes_if_final": 0,
    "defer_partition_pruning_after_final": 1,
    # FINAL would drop a deleted version where an older one of another merge key must be found superseded.
    "final": 0,
    "enable_shared_storage_snapshot_in_query": 1,
    # The tables are sorted by days in the server's time zone.
    "session_timezone": "",
    "join_use_nulls": 0,
    "transform_null_in": 0,
    "aggregate_functions_null_for_empty": 0,
    "output_format_arrow_low_cardinality_as_dictionary": 0,
    "output_format_arrow_string_as_string": 1,
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_denormals": 0,
}
"""The settings that the rows depend on."""

OPTIONAL: dict[str, object] = {
    # The slowest reader is a large upload over a slow connection: hours, with minutes between two reads.
    "max_execution_time": 12 * 3600,
    "timeout_before_checking_execution_speed": 0,
    "http_send_timeout": 1800,
    "http_receive_timeout": 1800,
    "cancel_http_readonly_queries_on_client_close": 1,
    # Headers keep the connection alive before the first byte; Python accepts 100 of them, which lasts for over an hour.
    "send_progress_in_http_headers": 1,
    "http_headers_progress_interval_ms": 45_000,
    "do_not_merge_across_partitions_select_final": 1,
    # A join that may spill loses the order of the table, and sorting whole rows costs more than spilling saves.
    "join_algorithm": "hash",
    "query_plan_join_swap_table": "false",
    "query_plan_convert_outer_join_to_inner_join": 0,
    "max_bytes_before_external_join": 0,
    "max_bytes_ratio_before_external_join": 0,
    "max_bytes_before_external_sort": SPILL_BYTES,
    "max_bytes_before_external_group_by": SPILL_BYTES,
    # Without it, ClickHouse writes `\/` for `/` in JSON, which means the same.
    "output_format_json_escape_forward_slashes": 0,
    "log_comment": "waybill",
}
"""The settings that only speed, memory and limits depend on."""

BOUNDED_BYTES = 50_000_000
BOUNDED: dict[str, object] = {
    "max_threads": 1,
    "max_block_size": 1024,
    "join_algorithm": "grace_hash",
    "grace_hash_join_initial_buckets": 32,
    "max_bytes_before_external_sort": BOUNDED_BYTES,
    "max_bytes_before_external_group_by": BOUNDED_BYTES,
}
"""The settings of statements that took too much memory: they spill, which takes several times as long."""

EQUIVALENT = {"use_skip_indexes_if_final": ("use_skip_indexes_if_final_exact_mode", "1")}
"""Settings whose other value gives the same rows where another setting has the given value."""

Version: TypeAlias = tuple[int, ...]
Faulty: TypeAlias = tuple[tuple[Version, Version], ...]
"""Ranges of versions: from the first one up to the second, which is not in the range."""

LAZY_MATERIALIZATION = "query_plan_optimize_lazy_materialization"
TOP_K_THROUGH_JOIN = "query_plan_top_k_through_join"
FAULTY: dict[str, Faulty] = {
    # Reading parts with lightweight updates can fail: ClickHouse issue 102904.
    LAZY_MATERIALIZATION: (((25, 4), (26, 4, 1, 1005)),),
    # Statements with a limit over a join can fail: ClickHouse issue 109210.
    TOP_K_THROUGH_JOIN: (
        ((26, 5, 1, 651), (26, 5, 6, 70)),
        ((26, 6), (26, 6, 2, 108)),
        ((26, 7), (26, 7, 1, 1334)),
        ((26, 7, 2), (26, 7, 2, 11)),
    ),
}
"""The versions of ClickHouse that have a bug in an optimization, by the setting that switches it."""

EFFECTS = {
    "max_execution_time": "exports that take longer fail",
    "http_send_timeout": "exports fail if the store accepts no data for longer",
    "max_block_size": "exports of wide rows take more memory",
    "cancel_http_readonly_queries_on_client_close": "statements of cancelled exports run on",
    "max_bytes_before_external_sort": "sorts may need more memory than the server has",
}
"""What the user notices where a setting is not the one that exports ask for."""

UNLIMITED = ("max_execution_time", "0")
"""A value that is as good as the wanted one."""


class Switch(StrEnum):
    """Whether an optimization is on; AUTO: unless the version has a bug in it. ON leaves it to the server."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


def switch_off(switches: Mapping[str, Switch], version: str) -> dict[str, object]:
    """Return the settings that switch optimizations off in a version of the server."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:4])
    return {
        name: 0
        for name, switch in switches.items()
        if switch is Switch.OFF
        or (switch is Switch.AUTO and any(first <= numbers < last for first, last in FAULTY[name]))
    }


@dataclass(frozen=True)
class Limit:
    """What a user may do with a setting: its `value` as it is, the allowed range, and whether it may be set at all."""

    value: str
    minimum: str | None = None
    maximum: str | None = None
    readonly: bool = False

    def allow(self, wanted: object) -> object | None:
        """Return the allowed value that is nearest to the wanted one; None if nothing is to be set."""
        if self.readonly or str(wanted) == self.value:
            return None
        if self.minimum is None and self.maximum is None:
            return wanted
        return self._clamp(wanted)

    def _clamp(self, wanted: object) -> object | None:
        try:
            lowest = float("-inf") if self.minimum is None else float(self.minimum)
            highest = float("inf") if self.maximum is None else float(self.maximum)
            number = float(str(wanted))
        except ValueError:
            return None
        if lowest <= number <= highest:
            return wanted
        nearest = int(highest if number > highest else lowest)
        return None if str(nearest) == self.value else nearest


@dataclass(frozen=True)
class Limits:
    """What the user may do with the settings of its server, by name; a server knows no others."""

    by_name: Mapping[str, Limit] = field(default_factory=dict)

    def choose(self, wanted: Mapping[str, object]) -> dict[str, object]:
        """Return the settings to send: unknown ones are left out, others are as near to `wanted` as is allowed."""
        allowed = ((name, self.by_name[name].allow(value)) for name, value in wanted.items() if name in self.by_name)
        return {name: value for name, value in allowed if value is not None}

    def require(self, wanted: Mapping[str, object]) -> dict[str, object]:
        """Return the settings to send; raises Rejected for the first one that can't have its value."""
        for name, value, actual in self.find_differences(wanted):
            if name in EQUIVALENT:
                other, needed = EQUIVALENT[name]
                if other in self.by_name and self.by_name[other].value == needed:
                    continue
            raise Rejected(
                f"ClickHouse's user may not set {name}: it is {actual!r}, and exports need {str(value)!r}. Ask your "
                f"administrator to allow this setting in the user's profile, or to give it this value there."
            )
        return self.choose(wanted)

    def find_differences(self, wanted: Mapping[str, object]) -> Iterator[tuple[str, object, object]]:
        """Yield name, wanted value and actual value of the settings that will not be as wanted."""
        for name, value in wanted.items():
            limit = self.by_name.get(name)
            if limit is None:
                continue
            chosen = limit.allow(value)
            actual = limit.value if chosen is None else chosen
            if str(actual) != str(value):
                yield name, value, actual


def describe_effects(limits: Limits, wanted: Mapping[str, object]) -> list[str]:
    """Return a sentence for the settings that are not as exports ask for, though the rows are the same."""
    found = limits.find_differences(wanted)
    differences = [each for each in found if (each[0], str(each[2])) != UNLIMITED]
    named = [
        f"{name} is {actual} for the ClickHouse user and not {value}: {EFFECTS[name]}"
        for name, value, actual in differences
        if name in EFFECTS
    ]
    others = sorted(name for name, _, _ in differences if name not in EFFECTS)
    if others:
        named.append(f"the ClickHouse user may not set {', '.join(others)}: exports may be slower, with the same rows")
    return named
