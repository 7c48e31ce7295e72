"""The grants of docs/install.md, given as they are printed there."""

import json
import re
from pathlib import Path

from sqlalchemy import Engine, text

_INSTALL = Path(__file__).parents[2] / "docs" / "install.md"


def _read() -> tuple[str, ...]:
    (block,) = re.findall(r"```sql\n(.*?)```", _INSTALL.read_text(), re.DOTALL)
    return tuple(statement.strip() for statement in block.split(";") if statement.strip())


MINIMAL_GRANTS = _read()
"""The statements for the role `waybill`, in their order."""


def grant(engine: Engine, role: str, schema: str = "public") -> None:
    """Give a role exactly the documented rights, on the tables of a schema."""
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL search_path TO {schema}"))
        for statement in MINIMAL_GRANTS:
            adapted = re.sub(r"\bTO waybill\b", f"TO {role}", statement)
            connection.execute(text(adapted.replace("SCHEMA public", f"SCHEMA {schema}")))


def minimal_policy(bucket: str, prefix: str, user: str, *, without: str | None = None) -> str:
    """The documented policy of a bucket for a user, without one action."""
    block = _INSTALL.read_text().partition("```json\n")[2].partition("```")[0]
    policy = json.loads(block.replace("BUCKET", bucket).replace("PREFIX", prefix))
    for statement in policy["Statement"]:
        statement["Principal"] = {"AWS": [user]}
        statement["Action"] = [action for action in statement["Action"] if action != without]
    return json.dumps(policy)
