"""Declares the stored query: the JSON in `batch_exports.query`, as Langfuse writes it."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictBool,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

SearchType = Literal["id", "content", "input", "output"]
TextOperator = Literal["=", "contains", "does not contain", "starts with", "ends with", "matches"]
Direction = Literal["ASC", "DESC"]
OrderOperator = Literal[">", "<", ">=", "<="]
NumberOperator = Literal["=", ">", "<", ">=", "<="]

# ClickHouse accepts at most 128 KiB for one bound value; a character has at most 4 bytes, and escapes may double it.
Text = Annotated[str, StringConstraints(max_length=16_384)]


def _keep_digits(value: Any, read: ValidatorFunctionWrapHandler) -> float:
    """Check a number; an integer keeps all its digits."""
    number: float = read(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else number


Number = Annotated[FiniteFloat, WrapValidator(_keep_digits)]
ALL_SCORES = "scores"
"""The name in `columns` that stands for the columns of all scores."""

SCORE_PREFIX = "scores."
"""What precedes the name of a score in `columns`."""

# The range of DateTime64.
FIRST_YEAR, LAST_YEAR = 1900, 2299


class _Stored(BaseModel):
    # A newer Langfuse may store keys that are not declared here; pipeline/ignored_keys.py finds them.
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class _OnColumn(_Stored):
    column: Text


class DatetimeFilter(_OnColumn):
    """Compares an instant; a value without a time zone is in UTC."""

    type: Literal["datetime"]
    operator: OrderOperator
    value: datetime

    @field_validator("value")
    @classmethod
    def _convert_to_utc(cls, value: datetime) -> datetime:
        if not FIRST_YEAR < value.year < LAST_YEAR:
            raise ValueError(f"should be a date after {FIRST_YEAR} and before {LAST_YEAR}")
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class StringFilter(_OnColumn):
    """Compares a text, case-sensitive."""

    type: Literal["string"]
    operator: TextOperator
    value: Text


class NumberFilter(_OnColumn):
    """Compares a number."""

    type: Literal["number"]
    operator: NumberOperator
    value: Number


class StringOptionsFilter(_OnColumn):
    """Matches a text that is one of the options, or none of them."""

    type: Literal["stringOptions"]
    operator: Literal["any of", "none of"]
    value: Annotated[tuple[Text, ...], Field(min_length=1)]


class CategoryOptionsFilter(_OnColumn):
    """Matches a category under a key that is one of the options, or none of them."""

    type: Literal["categoryOptions"]
    operator: Literal["any of", "none of"]
    key: Text
    value: tuple[Text, ...]


class ArrayOptionsFilter(_OnColumn):
    """Matches a list that has any, none or all of the options; only `any of` needs an option."""

    type: Literal["arrayOptions"]
    operator: Literal["any of", "none of", "all of"]
    value: tuple[Text, ...]

    @model_validator(mode="after")
    def _check_options(self) -> "ArrayOptionsFilter":
        if self.operator == "any of" and not self.value:
            raise ValueError("value should name at least one option for the operator 'any of'")
        return self


class StringObjectFilter(_OnColumn):
    """Compares the text of a key."""

    type: Literal["stringObject"]
    operator: TextOperator
    key: Text
    value: Text


class NumberObjectFilter(_OnColumn):
    """Compares the number of a key."""

    type: Literal["numberObject"]
    operator: NumberOperator
    key: Text
    value: FiniteFloat


class BooleanObjectFilter(_OnColumn):
    """Compares the boolean of a key."""

    type: Literal["booleanObject"]
    operator: Literal["=", "<>"]
    key: Text
    value: StrictBool


class BooleanFilter(_OnColumn):
    """Compares a boolean."""

    type: Literal["boolean"]
    operator: Literal["=", "<>"]
    value: StrictBool


class NullFilter(_OnColumn):
    """Matches rows with or without a value."""

    type: Literal["null"]
    operator: Literal["is null", "is not null"]
    value: Literal[""] = ""


class PositionFilter(_OnColumn):
    """Matches the place of an observation in its trace."""

    type: Literal["positionInTrace"]
    operator: Literal["="]
    key: Literal["root", "first", "last", "nthFromEnd", "nthFromStart"]
    value: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _check_place(self) -> "PositionFilter":
        if self.key.startswith("nth") and self.value is None:
            raise ValueError(f"value should be 1 or more for the key '{self.key}'")
        return self


Filter = Annotated[
    DatetimeFilter
    | StringFilter
    | NumberFilter
    | StringOptionsFilter
    | CategoryOptionsFilter
    | ArrayOptionsFilter
    | StringObjectFilter
    | NumberObjectFilter
    | BooleanObjectFilter
    | BooleanFilter
    | NullFilter
    | PositionFilter,
    Field(discriminator="type"),
]


class OrderBy(_Stored):
    """The column to sort by, named as in a filter."""

    column: Text
    order: Direction


class ExportQuery(_Stored):
    """The rows to export: those that match all filters.

    `limit` and `page` describe the user's screen and have no effect on an export. Only Waybill knows `compression` and
    `columns`: the columns of the file, in their order, or all in the table's order. Each is a column of the table, a
    score as `scores.<name>`, or all scores as `scores`.
    """

    table_name: Text
    filter: tuple[Filter, ...] | None = None
    search_query: Text | None = None
    search_type: tuple[SearchType, ...] | None = None
    order_by: OrderBy | None = None
    limit: int | None = None
    page: int | None = None
    use_events_table: bool = False
    compression: Literal["none", "gzip", "zstd"] = "none"
    columns: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        named: set[str] = set()
        for name in columns or ():
            if name in named:
                raise ValueError(f"{name[:80]!r} is named twice")
            named.add(name)
        scores = [name for name in columns or () if name.startswith(SCORE_PREFIX)]
        if scores and ALL_SCORES in named:
            raise ValueError(f"{scores[0][:80]!r} is named twice, because 'scores' stands for all scores")
        return columns

    @property
    def scores(self) -> tuple[str, ...] | None:
        """The names of the scores that `columns` names, in their order; None if it names all."""
        if self.columns is None or ALL_SCORES in self.columns:
            return None
        return tuple(name.removeprefix(SCORE_PREFIX) for name in self.columns if name.startswith(SCORE_PREFIX))

    @model_validator(mode="after")
    def _check_search(self) -> "ExportQuery":
        if self.search_query and self.search_type is not None and not self.search_type:
            raise ValueError("At least one search type is required when searching tracing data")
        return self
