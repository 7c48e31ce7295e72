"""Opens the table that a spec names, and gives its rows as record batches."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
from sqlalchemy import Engine

from config.errors import Rejected
from pipeline.batches import limit_cells, make_large_row_error, repair
from pipeline.enrich.comments import Comments
from pipeline.enrich.scores import SCORES, Cells, ScoreColumn, Scores, make_score_columns
from pipeline.interrupt import interrupt_on_stop
from pipeline.progress import Progress
from pipeline.query.choose_columns import arrange_columns, choose_columns, choose_outputs, choose_scores
from pipeline.query.clickhouse import external_tables, list_read_names
from pipeline.query.resolve_columns import resolve_query
from pipeline.query.statements import RowStatements, make_survey
from pipeline.query.without_absent import hide_view, without_absent
from pipeline.read import postgres
from pipeline.read.clickhouse import ClickHouseConnection
from pipeline.read.clickhouse_errors import NARROW, OutOfMemory
from pipeline.read.connections import Sources
from pipeline.read.external_data import read_external_data
from pipeline.spec import ExportSpec
from pipeline.sql.sources import STEPS, WIDE_ROW
from pipeline.tables import resolve_table
from pipeline.tables.clickhouse_table import ClickHouseTable, Enricher
from pipeline.tables.columns import ID
from pipeline.tables.database_table import DatabaseTable
from pipeline.types import CELLS, JSON_FLAG, Column, Kind

# ClickHouse limits its batches only by rows. Their number is chosen such that a batch of the widest rows has at most
# READ_BYTES. A batch of a few hundred rows costs the server twice the CPU per row, so where wide rows are rare there
# are more rows in a batch: MEAN_BATCH_BYTES of the mean size, and MOST_BATCH_BYTES if the widest are all adjacent.
READ_BYTES = 16 << 20
MEAN_BATCH_BYTES = 7 << 19
MOST_BATCH_BYTES = 64 << 20
MOST_ROWS = 8192
MOST_ATTEMPTS = 3
"""An export for which the server has too little memory fails at this attempt at the latest."""


class Table:
    """An open table, to be read once.

    `columns` are those of the file. `batches` are the rows as the source has them. `enrich` completes each batch: the
    columns of the file in their order, then the `#json` flags of those that may hold JSON, then the cells of sparse
    columns, then the row's ID if the file has no column for it. `id_place` is the place of the ID. `truncated` says,
    after all batches are read, whether the row limit cut off rows, and `null_columns` which columns, as `table.column`,
    are null because the tables in ClickHouse do not have them.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        batches: Iterator[pa.RecordBatch],
        enrichers: Sequence[Enricher],
        row_limit: int | None,
        null_columns: Collection[str] = (),
    ) -> None:
        self.null_columns = null_columns
        self.columns = tuple(columns)
        names = [column.name for column in columns]
        self._own = [column.name for column in columns if column.kind is not Kind.SPARSE]
        self.id_place = names.index(ID) if ID in names else -1
        self.truncated = False
        self._source = batches
        self._enrichers = tuple(enrichers)
        self._row_limit = row_limit
        self._flags = [f"{column.name}{JSON_FLAG}" for column in columns if column.kind is Kind.MAYBE_JSON]

    @property
    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, up to the row limit."""
        left = self._row_limit
        for batch in self._source:
            if left is not None and batch.num_rows > left:
                self.truncated = True
                if left:
                    yield batch.slice(0, left)
                return
            yield batch
            left = None if left is None else left - batch.num_rows

    def enrich(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches with the columns of other tables; each enricher makes one lookup per batch."""
        for batch in limit_cells(batches, len(self._own)):
            enriched = batch
            for enricher in self._enrichers:
                enriched = enricher(enriched)
            yield enriched.select(self._places(enriched.schema.names))

    def _places(self, names: list[str]) -> list[int]:
        """Find the columns and their flags; a score may have the name of a flag, and comes after it."""
        last = {name: place for place, name in enumerate(names)}
        own = [last[name] for name in self._own]
        cells = [last[CELLS]] if len(own) < len(self.columns) else []
        row_id = [last[ID]] if self.id_place < 0 else []
        return [*own, *(names.index(flag) for flag in self._flags), *cells, *row_id]


@contextmanager
def open_table(spec: ExportSpec, sources: Sources, progress: Progress) -> Iterator[Table]:
    """Open the table that the spec names, and read until its columns are known; its connections close with the block.

    Raises Rejected for a query that the table doesn't support, Unavailable when a database fails, Cancelled once
    `progress` is stopped. Reading the table raises the last two as well.
    """
    table = resolve_table(spec.query)
    if isinstance(table, DatabaseTable):
        chosen = choose_outputs(table, spec.query)
        with closing(postgres.read_batches(chosen, spec, sources.database, progress)) as batches:
            yield Table(arrange_columns(table.columns, [], spec.query), batches, [], spec.output.row_limit)
        return
    source = sources.choose(events=table.reads_events)
    bounded = spec.export_id in source.scarce
    with closing(ClickHouseConnection(source, progress, bounded=bounded)) as connection:
        try:
            yield from _open_clickhouse_table(table, spec, connection, interrupt_on_stop(sources.database, progress))
        except OutOfMemory as error:
            if (connection.bounded and error.by_query) or spec.attempt >= MOST_ATTEMPTS:
                source.scarce.discard(spec.export_id)
                raise Rejected(NARROW) from error
            source.scarce.add(spec.export_id)
            raise


def _open_clickhouse_table(
    declared: ClickHouseTable, spec: ExportSpec, connection: ClickHouseConnection, database: Engine
) -> Iterator[Table]:
    variant = declared
    if declared.fallback is not None and declared.name not in connection.server.columns:
        variant = declared.fallback
    survey = _read_survey(variant, spec, connection)
    if variant.fallback is not None and not survey.rows:
        variant = variant.fallback
        survey = _read_survey(variant, spec, connection)
    table = choose_columns(variant, spec.query)
    connection.absent = hide_view(table, connection.absent)
    table, null_columns = without_absent(table, connection.absent)
    connection.null_columns |= null_columns
    query = resolve_query(table, spec.query)
    external = read_external_data(external_tables(table, query), spec.project_id, database)
    statements = RowStatements(variant, table, query, spec)
    if survey.widest > spec.output.row_bytes:
        _refuse_large_rows(connection.batches(statements.make_large_row(), external), spec)
    scores = _make_score_columns(survey, spec, declared.columns)
    listed = [each.score for each in scores]
    statement = statements.make_rows(listed, survey.rows, by_day=survey.by_day)
    bounded = statements.make_bounded_rows(listed, by_day=survey.by_day)
    names = [*list_read_names(table), *([SCORES] if scores else [])]
    size = survey.rows_per_batch
    with closing(connection.batches(statement, external, bounded=bounded, max_block_size=size)) as batches:
        yield Table(
            arrange_columns(declared.columns, scores, spec.query),
            repair(_restore_lists(_name_columns(batches, names), table)),
            _make_enrichers(table, spec, database, scores),
            spec.output.row_limit,
            connection.null_columns,
        )


def _name_columns(batches: Iterator[pa.RecordBatch], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the batches with these names; raises TypeError for a column that ClickHouse returns as a Variant."""
    for batch in batches:
        for name, type_ in zip(names, batch.schema.types, strict=True):
            if pa.types.is_union(type_):
                raise TypeError(f"the column {name!r} is a Variant, {type_}; give all branches of its value one type")
        yield batch.rename_columns(names)


def _restore_lists(batches: Iterator[pa.RecordBatch], table: ClickHouseTable) -> Iterator[pa.RecordBatch]:
    """Yield the batches with lists for texts that stand for lists which are null."""
    lists = {output.name for output in table.outputs if output.kind is Kind.LIST}
    for batch in batches:
        for place, (name, type_) in enumerate(zip(batch.schema.names, batch.schema.types, strict=True)):
            if name in lists and pa.types.is_string(type_):
                empty = pa.nulls(batch.num_rows, pa.list_(pa.field("item", pa.string(), nullable=False)))
                batch = batch.set_column(place, name, empty)  # noqa: PLW2901 (the same batch)
        yield batch


def _refuse_large_rows(found: Iterator[pa.RecordBatch], spec: ExportSpec) -> None:
    """Raise Rejected if the query selects a row that is too large; found before it is read, it takes no memory."""
    for row_id in [each for batch in found for each in batch.column(0).to_pylist()]:
        raise make_large_row_error(row_id, spec.output.row_bytes)


@dataclass(frozen=True)
class _Survey:
    """What is known of a project's rows before they are read; see `pipeline.sql.sources.select_survey`.

    `names` are those of scores with their data types, sorted; None for a table without scores.
    """

    widest: int = 0
    all_bytes: int = 0
    wide_bytes: int = 0
    over: Mapping[int, int] = field(default_factory=dict)
    by_day: bool = True
    rows: int = 0
    names: Sequence[tuple[str, Sequence[str]]] | None = None

    @property
    def rows_per_batch(self) -> int:
        # A few very wide rows, which fit into one batch together, do not decide.
        widest = self.widest if self.wide_bytes > READ_BYTES else min(self.widest, WIDE_ROW)
        rows = READ_BYTES // (widest + 1)
        if widest <= WIDE_ROW:
            usual = MEAN_BATCH_BYTES * self.rows // (self.all_bytes + 1)
            # However the rows are placed, those of more than a step have no more than all their bytes in a batch.
            bounds = [(MOST_BATCH_BYTES - over) // step for step, over in {widest + 1: 0, **self.over}.items()]
            rows = max(rows, min(usual, max(bounds)))
        return max(1, min(MOST_ROWS, rows))


def _read_survey(declared: ClickHouseTable, spec: ExportSpec, connection: ClickHouseConnection) -> _Survey:
    statement = make_survey(declared, spec)
    for row in connection.rows(statement) if statement is not None else ():
        names = [tuple(pair.values()) for pair in row["names"]] if "names" in row else None
        if "bytes" not in row:
            return _Survey(names=names)
        return _Survey(
            widest=row["bytes"] or 0,
            all_bytes=row["all_bytes"] or 0,
            wide_bytes=row["wide_bytes"] or 0,
            over={step: row[f"over_{step}"] or 0 for step in STEPS},
            by_day=bool(row["by_day"]),
            rows=row["rows"],
            names=names,
        )
    return _Survey()


def _make_score_columns(survey: _Survey, spec: ExportSpec, taken: Sequence[Column]) -> list[ScoreColumn]:
    """Return the columns of scores in the file; `taken` are the columns that the table has whatever the query names."""
    if survey.names is None:
        return []
    fold = str.casefold if spec.encoding.format.caseless else str
    every = make_score_columns(survey.names, {column.name for column in taken}, fold)
    return choose_scores(every, spec.query, spec.encoding.format)


def _make_enrichers(
    table: ClickHouseTable, spec: ExportSpec, database: Engine, scores: Sequence[ScoreColumn]
) -> list[Enricher]:
    enrichers = [make(database, spec.project_id) for make in table.enrichers]
    if table.comments_on:
        enrichers.append(Comments(database, spec.project_id, table.comments_on))
    if scores:
        enrichers.append(Cells(scores) if scores[0].column.kind is Kind.SPARSE else Scores(scores))
    return enrichers
