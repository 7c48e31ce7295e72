"""Builds the INSERT ... SELECT statements with which ClickHouse generates the sample rows."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedded.sample import awkward

# The first rows of every thousand have the awkward values, so that a small sample contains all of them and a large one
# stays realistic.
PERIOD = 1000
STARTS = "2025-01-01 00:00:00"
DAYS = 30
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f'\\]")

PROSE = (
    "the customer asked about a refund for an order that never arrived and the agent looked up the tracking number "
    "before offering a replacement or credit while the model summarised earlier messages in three short points then "
    "suggested next steps with links to relevant articles please note delivery may take longer during holidays since "
    "carriers report delays across several regions our policy allows returns within thirty days provided items remain "
    "unused in original packaging contact support when payment fails twice because banks sometimes block new merchants"
)
WORDS = tuple(PROSE.split())
FILLER_LENGTH = 8000


@dataclass(frozen=True)
class Plan:
    """The data of one project: `rows` traces of about `payload_bytes` each."""

    project: str
    number: int
    rows: int
    payload_bytes: int
    seed: int

    @property
    def sessions(self) -> int:
        """The number of sessions, at most one for ten traces."""
        return max(1, self.rows // 10)

    def mixed(self, salt: str, of: str = "number") -> str:
        """Return an expression for 64 bits that depend on the row, the project, the seed and the salt."""
        return f"sipHash64({self.seed}, {self.number}, {of}, '{salt}')"

    def one_of(self, values: Sequence[str], salt: str) -> str:
        """Return an expression that picks one of these texts for each row."""
        return f"{texts(values)}[1 + {self.mixed(salt)} % {len(values)}]"

    def trace_time(self, of: str = "number") -> str:
        """Return the expression of a trace's timestamp: within a month, and sometimes before 1970."""
        spread = f"{self.mixed('timestamp', of)} % {DAYS * 86_400_000}"
        usual = f"toDateTime64('{STARTS}', 3, 'UTC') + toIntervalMillisecond({spread})"
        return f"if({of} % {PERIOD} = 41, toDateTime64('1969-07-20 20:17:40.123', 3, 'UTC'), {usual})"

    def words(self, share: float, salt: str) -> str:
        """Return an expression for readable text of about this share of the payload."""
        length = max(8, int(self.payload_bytes * share))
        text = filler_text(self.seed)
        copies = 1 + 2 * length // len(text)
        source = f"repeat({literal(text)}, {copies})"
        start = f"1 + {self.mixed(salt)} % {copies * len(text) - 3 * length // 2}"
        return f"substring({source}, {start}, {length // 2} + {self.mixed(salt + ' length')} % {length})"


def filler_text(seed: int) -> str:
    """Return readable sentences without quotes in one line of FILLER_LENGTH characters, the same for each seed."""
    rng = random.Random(seed)  # noqa: S311 (filler, not a secret)
    sentences = []
    length = 0
    while length <= FILLER_LENGTH:
        sentence = " ".join(rng.choices(WORDS, k=rng.randint(5, 18))).capitalize() + ". "
        sentences.append(sentence)
        length += len(sentence)
    return "".join(sentences)[:FILLER_LENGTH]


def insert(table: str, columns: Mapping[str, str], source: str) -> str:
    """Return the statement that fills these columns with these expressions over a source of `number`s."""
    names = ", ".join(columns)
    expressions = ",\n    ".join(columns.values())
    return f"INSERT INTO {table} ({names})\nSELECT\n    {expressions}\nFROM {source}"


def sometimes(values: Sequence[str | None], otherwise: str, shift: int = 0) -> str:
    """Return an expression for these values, from `shift` on, in the first rows of a period, and for `otherwise`."""
    array = "[" + ", ".join("NULL" if value is None else literal(value) for value in values) + "]"
    turn = f"number % {PERIOD}"
    return f"if({turn} < {len(values)}, {array}[1 + ({turn} + {shift}) % {len(values)}], {otherwise})"


def identifier(kind: str, of: str = "number") -> str:
    """Return the expression of an id such as `trace-0000042`."""
    return f"concat('{kind}-', leftPad(toString({of}), 7, '0'))"


def metadata(plan: Plan) -> str:
    """Return an expression for metadata, including awkward values."""
    odd = "[" + ", ".join(_map(value) for value in awkward.METADATA) + "]"
    source = plan.one_of(("web", "api", "batch"), "source")
    request = f"concat('{{\"id\":', toString({plan.mixed('request')}), ',\"retry\":false}}')"
    usual = f"map('source', {source}, 'attempt', toString({plan.mixed('attempt')} % 5), 'request', {request})"
    turn = f"number % {PERIOD}"
    return (
        f"CAST(if({turn} < {len(awkward.METADATA)}, {odd}[1 + {turn}], {usual}), 'Map(LowCardinality(String), String)')"
    )


def tags(plan: Plan) -> str:
    """Return an expression for tags, including awkward values."""
    # An empty array has no type of its own.
    odd = "CAST([" + ", ".join(texts(value) for value in awkward.TAGS) + "], 'Array(Array(String))')"
    usual = f"arraySlice({texts(('production', 'beta', 'v2', 'eu', 'internal'))}, 1 + {plan.mixed('tags')} % 5, 2)"
    turn = f"number % {PERIOD}"
    return f"if({turn} < {len(awkward.TAGS)}, {odd}[1 + {turn}], {usual})"


def texts(values: Sequence[str]) -> str:
    """Return an array literal."""
    return "[" + ", ".join(map(literal, values)) + "]"


def literal(text: str) -> str:
    """Return a string literal; a zero byte would end the statement."""
    return "'" + UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text) + "'"


def _map(value: Mapping[str, str]) -> str:
    flat = ", ".join(f"{literal(key)}, {literal(item)}" for key, item in value.items())
    return f"CAST(map({flat}), 'Map(String, String)')"
