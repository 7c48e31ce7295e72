"""Looks up the models of a batch's observations and their prices."""

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
from sqlalchemy import ColumnElement, Engine, Select, Text, and_, cast, or_, select

from config.errors import Rejected
from config.tables import models, prices, pricing_tiers
from pipeline.enrich.lookup import list_distinct
from pipeline.interrupt import connect
from pipeline.sql.postgres import is_one_of

MODEL_ID = "internalModelId"
"""The column that names an observation's model."""

COLUMNS = {"input": "inputPrice", "output": "outputPrice", "total": "totalPrice"}
PRICE = pl.Decimal(38, 30)
TOO_HIGH = Decimal(10) ** 8


class Prices:
    """Adds `modelId`, null for a model that the project does not have, and the prices of the model's default tier.

    Models belong to the project or to all projects. Each is looked up once. Raises Unavailable when the database fails,
    and Rejected for a price that does not fit into 38 digits.
    """

    def __init__(self, database: Engine, project_id: str) -> None:
        self._database = database
        self._project_id = project_id
        self._known: dict[str, dict[str, Decimal] | None] = {}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with the columns at its end."""
        ids = batch.column(MODEL_ID)
        self._load_models([each for each in list_distinct(ids) if each not in self._known])
        known_ids = [each for each, found in self._known.items() if found is not None]
        columns = {"modelId": pl.Series(known_ids, dtype=pl.String)}
        for usage, name in COLUMNS.items():
            amounts = [(self._known[each] or {}).get(usage) for each in known_ids]
            columns[name] = pl.Series(amounts, dtype=PRICE)
        known = pl.DataFrame(columns).with_columns(pl.col("modelId").alias("key"))
        asked = pl.DataFrame({"key": pl.Series(ids, dtype=pl.String)})
        joined = asked.join(known, on="key", how="left", maintain_order="left").drop("key")
        for name in columns:
            array = joined[name].to_arrow()
            batch = batch.append_column(name, array.cast(pa.string()) if name == "modelId" else array)
        return batch

    def _load_models(self, ids: list[str]) -> None:
        if not ids:
            return
        found: defaultdict[str, dict[str, Decimal]] = defaultdict(dict)
        with connect(self._database) as connection:
            for row in connection.execute(self._statement(ids)):
                found[row.id] |= {} if row.price is None else {row.usage_type: _parse_price(row.id, row.price)}
        self._known |= {each: found.get(each) for each in ids}

    def _statement(self, ids: Iterable[str]) -> Select[Any]:
        """Select a row for each price of each model; a model without prices has one row without a price.

        Prices are selected as text, because SQLite would round them to floating point.
        """
        default = and_(pricing_tiers.c.model_id == models.c.id, pricing_tiers.c.is_default)
        priced = and_(
            prices.c.pricing_tier_id == pricing_tiers.c.id,
            prices.c.model_id == models.c.id,
            self._is_visible(prices.c.project_id),
            prices.c.usage_type.in_(COLUMNS),
        )
        return (
            select(models.c.id, prices.c.usage_type, cast(prices.c.price, Text).label("price"))
            .select_from(models.outerjoin(pricing_tiers, default).outerjoin(prices, priced))
            .where(is_one_of(models.c.id, ids, self._database), self._is_visible(models.c.project_id))
            .order_by(models.c.id, prices.c.usage_type, prices.c.id)
        )

    def _is_visible(self, owner: ColumnElement[str | None]) -> ColumnElement[bool]:
        return or_(owner.is_(None), owner == self._project_id)


def _parse_price(model_id: str, written: str) -> Decimal:
    price = Decimal(written)
    if abs(price) >= TOO_HIGH:
        raise Rejected(
            f"The model {model_id[:80]!r} has a price of {price:,.0f}; below {TOO_HIGH:,} it can be exported."
        )
    return price
