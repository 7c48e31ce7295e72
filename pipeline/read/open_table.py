"""Opens the table that a spec names, and gives its rows as record batches."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline.batches import repair
from pipeline.database import stoppable
from pipeline.enrich.comments import COMMENTS, Comments
from pipeline.enrich.scores import SCORES, Cells, ScoreColumn, Scores, make_score_columns
from pipeline.query import related, statement
from pipeline.read import postgres as relational
from pipeline.read.clickhouse import Server
from pipeline.read.connections import Sources
from pipeline.read.external_data import gathered
from pipeline.spec import ExportSpec
from pipeline.sql import scores
from pipeline.tables import resolve_table
from pipeline.tables.clickhouse_table import Declaration, Enricher
from pipeline.tables.database_table import Relational
from pipeline.types import CELLS, JSON_FLAG, Column, Kind, Progress

# What the server may put into one batch; its own limits are in rows alone.
BATCH_BYTES = 32 << 20
MOST_ROWS = 8192
FEWEST_ROWS = 16


class Table:
    """A table that is open for reading, once.

    `columns` are those of the file. `batches` gives the rows as the source has them, and `enrich` completes each batch:
    the columns of the file in their order, then the `#json` companions of those that may hold JSON, then the cells of
    sparse columns. `truncated` says, once all batches are read, whether the row limit left rows out.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        batches: Iterator[pa.RecordBatch],
        enrichers: Sequence[Enricher],
        row_limit: int | None,
    ) -> None:
        self.columns = tuple(columns)
        self.truncated = False
        self._source = batches
        self._enrichers = tuple(enrichers)
        self._row_limit = row_limit
        self._flags = [f"{column.name}{JSON_FLAG}" for column in columns if column.kind is Kind.MAYBE_JSON]

    @property
    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, no more than the limit allows."""
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
        """Yield the batches with what is looked up elsewhere, one look-up a batch."""
        for batch in batches:
            enriched = batch
            for enricher in self._enrichers:
                enriched = enricher(enriched)
            yield enriched.select(self._places(enriched.schema.names))

    def _places(self, names: list[str]) -> list[int]:
        """Find the columns and their companions; a score may be called as a companion is, and comes after it."""
        last = {name: place for place, name in enumerate(names)}
        own = [last[column.name] for column in self.columns if column.kind is not Kind.SPARSE]
        cells = [last[CELLS]] if len(own) < len(self.columns) else []
        return [*own, *(names.index(flag) for flag in self._flags), *cells]


@contextmanager
def open_table(spec: ExportSpec, sources: Sources, progress: Progress) -> Iterator[Table]:
    """Open the table that the spec names, and read it as far as its columns; the connections close with the block.

    Raises Rejected for what the table can't honour, Unavailable when a database fails, Cancelled once `progress` is
    stopped; reading the table raises them, too.
    """
    table = resolve_table(spec.query)
    if isinstance(table, Relational):
        with closing(relational.batches(table, spec, sources.database, progress)) as batches:
            yield Table([field.column for field in table.fields], batches, [], spec.output.row_limit)
        return
    declaration = table
    sources = replace(sources, database=stoppable(sources.database, progress))
    with closing(Server(sources.clickhouse, progress)) as server:
        surveyed = _surveyed(declaration, spec, server)
        if declaration.otherwise is not None and not surveyed.rows:
            declaration = declaration.otherwise
            surveyed = _surveyed(declaration, spec, server)
        sent = gathered(related.sent(declaration, spec.query), spec.project_id, sources.database)
        scored = _scored(declaration, spec, server)
        batches = server.batches(
            statement.rows(declaration, spec, [column.score for column in scored], by_day=surveyed.by_day),
            sent,
            max_block_size=surveyed.rows_a_batch,
        )
        with closing(batches):
            yield Table(
                _columns(declaration, spec, scored),
                _named(repair(batches), _selected(declaration, scored)),
                _enrichers(declaration, spec, sources, scored),
                spec.output.row_limit,
            )


def _scored(declaration: Declaration, spec: ExportSpec, server: Server) -> list[ScoreColumn]:
    if not declaration.scores:
        return []
    taken = {column.name for column in _columns(declaration, spec, [])}
    found = server.rows(scores.select_names(spec.project_id, spec.created_at))
    return make_score_columns([(row["name"], row["types"]) for row in found], taken)


def _columns(declaration: Declaration, spec: ExportSpec, scored: Sequence[ScoreColumn]) -> list[Column]:
    fixed = [output.column for output in declaration.outputs]
    comments = [Column(COMMENTS, Kind.JSON)] if declaration.comments_on else []
    of_scores = (
        each.column if spec.encoding.format.typed else Column(each.column.name, Kind.SPARSE) for each in scored
    )
    return [*fixed, *comments, *of_scores]


def _selected(declaration: Declaration, scored: Sequence[ScoreColumn]) -> list[str]:
    """Name what the statement selects, place by place."""
    names = []
    for output in (*declaration.outputs, *declaration.needed):
        if output.value is None:
            continue
        names.append(output.name)
        if output.kind is Kind.MAYBE_JSON:
            names.append(f"{output.name}{JSON_FLAG}")
    return [*names, SCORES] if scored else names


@dataclass(frozen=True)
class _Survey:
    """What is known of a project's rows before they are read."""

    widest: int = 0
    by_day: bool = True
    rows: int = 0

    @property
    def rows_a_batch(self) -> int:
        return max(FEWEST_ROWS, min(MOST_ROWS, BATCH_BYTES // (self.widest + 1)))


def _surveyed(declaration: Declaration, spec: ExportSpec, server: Server) -> _Survey:
    asked = statement.surveyed(declaration, spec)
    if asked is None:
        return _Survey()
    for row in server.rows(asked):
        return _Survey(row["bytes"] or 0, bool(row["by_day"]), row["rows"])
    return _Survey()


def _named(batches: Iterator[pa.RecordBatch], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.rename_columns(list(names))


def _enrichers(
    declaration: Declaration, spec: ExportSpec, sources: Sources, scored: Sequence[ScoreColumn]
) -> list[Enricher]:
    enrichers = [made(sources.database, spec.project_id) for made in declaration.enrichers]
    if declaration.comments_on:
        enrichers.append(Comments(sources.database, spec.project_id, declaration.comments_on))
    if scored:
        enrichers.append(Scores(scored) if spec.encoding.format.typed else Cells(scored))
    return enrichers
