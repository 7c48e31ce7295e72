"""The grants of docs/install.md, run as they are printed there."""

import re
from pathlib import Path

from sqlalchemy import Engine, text

_INSTALL = Path(__file__).parents[2] / "docs" / "install.md"


def _read() -> tuple[str, ...]:
    (block,) = re.findall(r"```sql\n(.*?)```", _INSTALL.read_text(), re.DOTALL)
    return tuple(statement.strip() for statement in block.split(";") if statement.strip())


MINIMAL_GRANTS = _read()
"""The statements for the role `waybill`, in their order."""


def grant(engine: Engine, role: str) -> None:
    """Give a role exactly the documented rights."""
    with engine.begin() as connection:
        for statement in MINIMAL_GRANTS:
            connection.execute(text(re.sub(r"\bTO waybill\b", f"TO {role}", statement)))
