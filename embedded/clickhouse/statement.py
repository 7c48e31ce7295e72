"""A statement as the HTTP interface receives it; reading one does not load the engine, which takes 300 MB of memory."""

import re
from dataclasses import dataclass, field

FORMAT = re.compile(r"\bFORMAT\s+(\w+)(?:\s+SETTINGS\s[^'\"`()]*(?:'[^']*'[^'\"`()]*)*)?[\s;]*\Z", re.IGNORECASE)


@dataclass(frozen=True)
class ExternalTable:
    """A table sent with a statement: `structure` is its columns, `data` its rows in `format`."""

    name: str
    structure: str
    format: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Statement:
    """One statement, with all that the client sets for it."""

    sql: str
    query_id: str
    database: str = ""
    default_format: str = "TabSeparated"
    params: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    external_tables: tuple[ExternalTable, ...] = ()

    @property
    def format(self) -> str:
        """The format of the response: the statement's own, or the default."""
        found = FORMAT.search(self.sql)
        return found[1] if found else self.default_format
