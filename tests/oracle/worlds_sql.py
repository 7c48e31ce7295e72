"""Makes the rows of a world's SQL tables, with the same object ids in every project."""

from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

from tests.oracle import pools
from tests.oracle.load import Document
from tests.oracle.pools import PROJECTS, instant, text

DOCUMENTS: tuple[Any, ...] = (
    None,
    {},
    {"k": "alpha Beta", "n": 12, "o": {"x": [1, None]}, "none": None, "数": "数据"},
    {"k": "Beta", "big": 12345678901234567890},
    ["a", {"b": 2.5}],
    "text",
    7,
)


def sql_rows(
    random: Random, project: str, size: int, trace_ids: list[str], span_ids: list[str], session_ids: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of one project by table; what belongs to no project comes with the first one."""
    shared = _shared() if project == PROJECTS[0] else {}
    targets = {"TRACE": trace_ids, "OBSERVATION": span_ids, "SESSION": session_ids}
    return {
        **shared,
        "comments": [
            _comment(random, project, number, kind, random.choice(ids))
            for number, (kind, ids) in enumerate(random.choices(list(targets.items()), k=size))
        ],
        "trace_sessions": [
            {
                "id": session,
                "project_id": project,
                "bookmarked": random.random() < 0.5,
                "public": random.random() < 0.5,
            }
            for session in session_ids[::2]
        ],
        "datasets": [
            {"id": f"d{n}", "project_id": project, "name": f"{text(random)} {n}".replace("\x00", "")} for n in range(3)
        ],
        "dataset_items": [
            row for number in range(size // 2) for row in _item(random, project, number, trace_ids, span_ids)
        ],
        "audit_logs": [_log(random, project, number) for number in range(size)],
    }


def _shared() -> dict[str, list[dict[str, Any]]]:
    """Users, and models with prices: everybody's, and each project's own."""
    owners = {"m-global": None, "m-p-one": "p-one", "m-p-two": "p-two"}
    tiers = [(model, kind) for model in owners for kind in ("default", "other")]
    return {
        "users": [
            {"id": "user-1", "name": '=Ada, "Countess"', "email": "ada@example.com"},
            {"id": "user-2", "name": None, "email": None},
        ],
        "models": [
            {"id": model, "project_id": owner, "model_name": model, "match_pattern": "x"}
            for model, owner in owners.items()
        ],
        "pricing_tiers": [
            {"id": f"{model}-{kind}", "model_id": model, "name": kind, "is_default": kind == "default"}
            for model, kind in tiers
        ],
        "prices": [
            {
                "id": f"{model}-{kind}-{usage}",
                "model_id": model,
                "project_id": owners[model],
                "pricing_tier_id": f"{model}-{kind}",
                "usage_type": usage,
                "price": Decimal("0.0000025") * (len(model) + place) * (1 if kind == "default" else 1000),
            }
            for model, kind in tiers
            for place, usage in enumerate(("input", "output", "total"))
            if not (model == "m-p-one" and usage == "total")
        ],
    }


def _comment(random: Random, project: str, number: int, kind: str, object_id: str) -> dict[str, Any]:
    return {
        "id": f"{project}-c{number}",
        "project_id": project,
        "object_type": kind,
        "object_id": object_id,
        "content": random.choice(pools.COMMENTS),
        "author_user_id": random.choice((None, "user-1", "user-2", "user-gone")),
        "created_at": instant(random),
    }


def _item(random: Random, project: str, number: int, trace_ids: list[str], span_ids: list[str]) -> list[dict[str, Any]]:
    """An item with an older version now and then."""
    start = instant(random)
    versions = [start + timedelta(hours=hour) for hour in range(random.choice((1, 1, 2)))]
    return [
        {
            "id": f"i{number}",
            "project_id": project,
            "dataset_id": f"d{random.randrange(4)}",
            "status": random.choice(("ACTIVE", "ARCHIVED")),
            **{name: _document(random) for name in ("input", "expected_output", "metadata")},
            "source_trace_id": random.choice((None, "", random.choice(trace_ids))),
            "source_observation_id": random.choice((None, random.choice(span_ids))),
            "created_at": start,
            "updated_at": instant(random),
            "valid_from": valid_from,
            "valid_to": None if valid_from == versions[-1] else versions[-1],
            "is_deleted": random.random() < 0.15,
        }
        for valid_from in versions
    ]


def _document(random: Random) -> Document | None:
    """A JSON value, JSON's null among them, or no value."""
    return random.choice((None, *(Document(value) for value in DOCUMENTS)))


def _log(random: Random, project: str, number: int) -> dict[str, Any]:
    return {
        "id": f"{project}-a{number}",
        "project_id": project,
        "type": random.choice(("USER", "API_KEY")),
        "api_key_id": random.choice((None, "key-1", "")),
        "user_id": random.choice((None, "user-1", "user-2")),
        "org_id": "org",
        "user_org_role": random.choice((None, "OWNER")),
        "user_project_role": random.choice((None, "ADMIN")),
        "resource_type": random.choice(("trace", "score", "prompt")),
        "resource_id": random.choice(pools.AWKWARD_IDS),
        "action": random.choice(("create", "delete", "Create")),
        "before": random.choice((None, '{"name": "alpha \\u6570"}', "not JSON", "")),
        "after": random.choice((None, '{"name": "Beta", "n": 1.50}', "=1+1")),
        "created_at": instant(random),
        "updated_at": instant(random),
    }
