"""Generates the rows of the database: users, projects, comments, datasets and others that exports look up."""

import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Table, insert

from config import tables
from embedded.sample import awkward
from embedded.sample.sql import Plan, filler_text

BATCH = 5000
USERS = 20
DATASETS = 3
ITEMS = 50
DELETED_ITEM = 30  # one of the items with several versions
AUDIT_LOGS = 200
MODELS = ("model-a", "model-b", "model-c")
STARTS = datetime(2025, 1, 1, tzinfo=UTC)
USER_NAMES = ("Ada Lovelace", "José Ñandú", "李小龍", 'Zoë "Zed" O\'Brien', "<b>Bob</b>", "line\nbreak", "", None)
Row = dict[str, Any]


def fill_shared(connection: Connection, projects: Sequence[str]) -> None:
    """Write the rows that projects share: the projects themselves, users, models and prices."""
    _write(
        connection,
        tables.projects,
        ({"id": project, "name": f"Project {project}", **_stamps(0)} for project in projects),
    )
    _write(connection, tables.users, map(_user, range(USERS)))
    _write(connection, tables.models, map(_model, MODELS))
    _write(connection, tables.pricing_tiers, map(_tier, MODELS))
    _write(connection, tables.prices, (price for model in MODELS for price in _prices(model)))


def fill_project(connection: Connection, plan: Plan) -> None:
    """Write the comments of one project (on every hundredth trace), its sessions, datasets and audit logs."""
    _write(connection, tables.comments, _comments(plan))
    _write(connection, tables.trace_sessions, (_session(plan, number) for number in range(plan.sessions)))
    _write(connection, tables.datasets, (_dataset(plan, number) for number in range(DATASETS)))
    _write(connection, tables.dataset_items, (row for number in range(ITEMS) for row in _item_versions(plan, number)))
    _write(connection, tables.audit_logs, (_audit_log(plan, number) for number in range(AUDIT_LOGS)))


def _write(connection: Connection, table: Table, rows: Iterable[Row]) -> None:
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH)):
        connection.execute(insert(table), batch)


def _stamps(minutes: int) -> Row:
    created = STARTS + timedelta(minutes=minutes, milliseconds=minutes % 1000)
    return {"created_at": created, "updated_at": created + timedelta(hours=1)}


def _user(number: int) -> Row:
    name = USER_NAMES[number] if number < len(USER_NAMES) else f"User {number}"
    email = None if number == USERS - 1 else f"user-{number}@example.com"
    return {"id": f"user-{number}", "name": name, "email": email, **_stamps(number)}


def _model(name: str) -> Row:
    return {
        "id": f"{name}-id",
        "project_id": None,
        "model_name": name,
        "match_pattern": f"(?i)^{name}$",
        "unit": "TOKENS",
        **_stamps(0),
    }


def _tier(model: str) -> Row:
    return {
        "id": f"{model}-tier",
        "model_id": f"{model}-id",
        "name": "Standard",
        "is_default": True,
        "priority": 0,
        **_stamps(0),
    }


def _prices(model: str) -> Iterator[Row]:
    for usage, price in (("input", "0.0000025"), ("output", "0.00001"), ("total", "0.000000000001")):
        yield {
            "id": f"{model}-{usage}",
            "model_id": f"{model}-id",
            "project_id": None,
            "pricing_tier_id": f"{model}-tier",
            "usage_type": usage,
            "price": Decimal(price),
            **_stamps(0),
        }


def _comments(plan: Plan) -> Iterator[Row]:
    """Yield up to three comments for each hundredth trace and some observations, awkward texts first."""
    rng = random.Random(plan.seed)  # noqa: S311 (sample data, not a secret)
    text = filler_text(plan.seed)
    # A zero byte is the only character that Postgres can't store.
    contents = [*(each for each in awkward.TEXTS if "\x00" not in each)]
    number = 0
    for kind, prefix, step in (("TRACE", "trace", 100), ("OBSERVATION", "observation", 500)):
        for target in range(0, plan.rows, step):
            for _ in range(rng.randint(1, 3)):
                start = rng.randrange(len(text) - 200)
                yield {
                    "id": f"comment-{plan.number}-{number}",
                    "project_id": plan.project,
                    "object_type": kind,
                    "object_id": f"{prefix}-{target:07}",
                    "content": contents[number] if number < len(contents) else text[start : start + 200],
                    "author_user_id": None if number % 10 == 0 else f"user-{number % (USERS + 1)}",
                    **_stamps(number),
                }
                number += 1


def _session(plan: Plan, number: int) -> Row:
    return {
        "id": f"session-{number:07}",
        "project_id": plan.project,
        "bookmarked": number % 10 == 0,
        "public": number % 7 == 0,
        "environment": "default",
        **_stamps(number),
    }


def _dataset(plan: Plan, number: int) -> Row:
    return {
        "id": f"dataset-{number}",
        "project_id": plan.project,
        "name": ("golden questions", 'with,comma and "quotes"', "日本語")[number],
        "description": None,
        "metadata": {"owner": "user-1"},
        **_stamps(number),
    }


def _item_versions(plan: Plan, number: int) -> Iterator[Row]:
    """Yield the versions of an item: outdated ones have an end, and the last version of a deleted item is deleted."""
    versions = 1 if number % 10 else 3
    for version in range(versions):
        starts = STARTS + timedelta(days=version, minutes=number)
        last = version == versions - 1
        yield {
            "id": f"item-{number:07}",
            "project_id": plan.project,
            "dataset_id": f"dataset-{number % DATASETS}",
            "status": "ARCHIVED" if number % 8 == 0 else "ACTIVE",
            "input": {
                "question": awkward.UNICODE[number % len(awkward.UNICODE)],
                "version": version,
                "big": 9007199254740993,
            },
            "expected_output": (None, "plain text", ["a", None], {"answer": "=1+1"})[number % 4],
            "metadata": {"number": number},
            "source_trace_id": f"trace-{number:07}" if number % 2 else None,
            "source_observation_id": f"observation-{number:07}" if number % 4 == 1 else None,
            "valid_from": starts,
            "valid_to": None if last else starts + timedelta(days=1),
            "is_deleted": last and number == DELETED_ITEM,
            **_stamps(number),
        }


def _audit_log(plan: Plan, number: int) -> Row:
    return {
        "id": f"audit-{plan.number}-{number}",
        "type": "API_KEY" if number % 5 == 0 else "USER",
        "api_key_id": "key-1" if number % 5 == 0 else None,
        "user_id": None if number % 5 == 0 else f"user-{number % USERS}",
        "org_id": "organisation-1",
        "user_org_role": "OWNER",
        "project_id": plan.project,
        "user_project_role": "ADMIN",
        "resource_type": ("trace", "dataset", "batchExport")[number % 3],
        "resource_id": f"resource-{number}",
        "action": ("create", "update", "delete")[number % 3],
        "before": None if number % 3 == 0 else '{"name":"before \\u00e9"}',
        "after": None if (number + 1) % 3 == 0 else '{"name":"after, with \\"quotes\\""}',
        **_stamps(number),
    }
