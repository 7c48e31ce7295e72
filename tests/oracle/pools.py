r"""Holds the awkward values that worlds are made of; all of them can be stored exactly by every database.

Left out by design, because the rules leave them open: letters whose case differs outside ASCII in comments and SQL
tables (SQLite folds ASCII only); sums of 64-bit integers that overflow; averages that depend on the order of addition.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

PROJECTS = ("p-one", "p-two", "p%_'\"\\")
"""All hold the same ids; the last has events but no legacy traces and observations."""
EVENTS_ONLY = PROJECTS[2]
CUTOFF = datetime(2026, 3, 15, 12, tzinfo=UTC)

AWKWARD_IDS = ("a/b?c=1", "it's", '"q",x', "100%_\\", "'; DROP TABLE traces; --", "é\u0301-数", "=1+1", " lead")
WORDS = ("alpha", "Beta", "gamma-ray", "delta_4", "100%", "x\\y", "naïve", "数据", "🙂", "{p:String}", "%(a)s", ":b")
TEXTS = (
    "",
    " ",
    "=1+1",
    "+49 30 1234",
    "-5",
    "-5e3",
    "-5x",
    "@cmd",
    "\ttab",
    "line\nbreak",
    "cr\r\nlf",
    "bare\rcr",
    'quo"te, comma',
    "back\\slash",
    "\\u0041 not JSON",
    "nul\x00byte",
    "עברית",
    "e\u0301 combining",
    "null",
    "NaN",
    "'apostrophe",
    "\ufeffbom",
    "\u2028separator",
)
JSON_TEXTS = (
    "{}",
    "[]",
    "12345678901234567890",
    "-0.10000000000000000001",
    "true",
    '"just a string"',
    ' {"spaced" : [1, 2.50, null, {"deep": {"er": []}}]} ',
    '{"esc": "\\u00e9\\u6570 \\ud83d\\ude42 \\u0022 \\u000a \\\\u0041"}',
    '{"line":\n  "breaks"}',
    '{"lone": "\\ud800 \\u00e9", "large": 1e400}',
    '{"unfinished": ',
    '{"a": 1} trailing',
    '{"数": "=1+1", "k": "alpha Beta"}',
    '[{"role": "user", "content": "naïve 数据 100%"}]',
)
KEYS = ("evaluator_id", "job_configuration_id", "evaluation_rule_id", "k", "a.b", "clé", 'q"k', "K")
SCORE_NAMES = (
    "accuracy",
    "id",
    "input",
    "10",
    'a,b"c',
    "🙂",
    "scores.id",
    "input#json",
    "=1+1",
    "mixed",
    "extreme",
    "it's {x} %s\\",
)
CATEGORIES = ("good", "bad", "Good", "a:b", "", "数", "'")
TAGS = ("t1", "t2", "T1", "", "with,comma", "数", "it's")
LEVELS = ("DEBUG", "DEFAULT", "WARNING", "ERROR")
TYPES = ("SPAN", "GENERATION", "EVENT")
MODELS = ("m-global", "m-p-one", "m-p-two", "m-unknown")
COUNTS = (0, 1, 7, 1000, 2**31, 2**53 + 1)
COSTS = tuple(map(Decimal, ("0", "0.000000000001", "0.1", "0.25", "12.5", "999.123456789012")))
NUMBERS = (0.0, 1.0, -1.0, 0.5, 0.25, 0.75, 3.0, 1000.125)
EXTREMES = (float("nan"), float("inf"), float("-inf"), 1e308, 5e-324, 0.1, -0.3, float(2**53 + 2))
COMMENTS = ("Looks good", "looks GOOD to me", "50% off_by\\one", "数据 ok", "=1+1", "'; --", "needs\nwork", "")
USAGE_KEYS = ("input", "output", "total", "input_cached", "OUTPUT_reasoning", "custom")


def instant(random: Random, *, micros: bool = False) -> datetime:
    """An instant: mostly in the days before the cutoff, some right at it, after it, or before 1970."""
    unit = timedelta(microseconds=1) if micros else timedelta(milliseconds=1)
    if random.random() < 0.75:
        days, milliseconds = random.randrange(3), random.randrange(86_400_000)
        return CUTOFF - timedelta(days=days, milliseconds=milliseconds + 1) + unit * random.randrange(2)
    return random.choice(
        (
            CUTOFF,
            CUTOFF - unit,
            CUTOFF + unit,
            CUTOFF + timedelta(days=30),
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(1970, 1, 1, tzinfo=UTC) - unit,
            datetime(1955, 11, 5, 6, 15, tzinfo=UTC) + 7 * unit,
            datetime(2026, 2, 28, 23, 59, 59, 999_000, tzinfo=UTC),
        )
    )


def maybe(random: Random, value: str | None) -> str | None:
    """The value, or sometimes none or empty text."""
    return random.choice((value, value, value, None, ""))


def text(random: Random) -> str:
    """A short text: some words, or an awkward one."""
    if random.random() < 0.3:
        return random.choice(TEXTS)
    return " ".join(random.choices(WORDS, k=random.randint(1, 3)))


def payload(random: Random) -> str:
    """A text as input, output and metadata hold it; some not valid UTF-8, their bytes as lone surrogates."""
    if random.random() < 0.03:
        return "broken \udcff\udcfe bytes"  # its place in a sort is decided before the bytes
    return random.choice((random.choice(JSON_TEXTS), text(random)))


def metadata(random: Random) -> dict[str, str]:
    """A map of a few keys."""
    return {key: payload(random) for key in random.sample(KEYS, random.randrange(4))}


def later(random: Random, start: datetime, *, micros: bool = False) -> datetime | None:
    """An end for a start: often none, at times the same instant."""
    unit = timedelta(microseconds=1) if micros else timedelta(milliseconds=1)
    return random.choice((None, start, start + unit, start + random.randrange(1, 5_000_000) * unit))
