import gzip
import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry

from config.errors import Cancelled, Rejected, Unavailable
from config.metrics import Metrics
from pipeline.batches import BATCH_BYTES
from pipeline.export import deliver
from pipeline.progress import Progress
from pipeline.read import Table
from pipeline.spec import ExportSpec, read_spec
from pipeline.storage import S3Options, Storage, open_storage
from pipeline.types import FORMATS, Column, ExportResult, Kind, OutputOptions
from tests import moto_server
from tests.moto_server import Fault
from tests.oracle import files as files_reader

COLUMNS = (Column("id", Kind.TEXT), Column("n", Kind.INTEGER))
CREATED = datetime(2026, 3, 1, 12, 0, 0, 123000, UTC)
FINISHED = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)


def spec(form: str = "CSV", attempt: int = 2, **query: object) -> ExportSpec:
    return read_spec(
        project_id="p/1",
        export_id="e1",
        attempt=attempt,
        created_at=CREATED,
        query={"tableName": "traces", "filter": [], "orderBy": None, **query},
        format=form,
        output=OutputOptions(prefix="exports/"),
    )


def batches(count: int = 3, rows: int = 10) -> Iterator[pa.RecordBatch]:
    for number in range(count):
        ids = [f"row-{number * rows + row}" for row in range(rows)]
        yield pa.RecordBatch.from_pydict({"id": ids, "n": list(range(number * rows, (number + 1) * rows))})


def table(source: Iterator[pa.RecordBatch] | None = None, row_limit: int | None = None) -> Table:
    return Table(COLUMNS, batches() if source is None else source, [], row_limit)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(tmp_path.as_uri(), S3Options())


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def run(
    storage: Storage,
    what: ExportSpec | None = None,
    rows: Table | None = None,
    progress: Progress | None = None,
    fence: Callable[[], None] = lambda: None,
    clock: Callable[[], datetime] = lambda: FINISHED,
) -> ExportResult:
    return deliver(
        what or spec(),
        rows or table(),
        storage,
        progress or Progress(),
        Metrics(CollectorRegistry()),
        fence=fence,
        clock=clock,
    )


def unpacked(data: bytes, compression: str) -> bytes:
    if compression == "zstd":
        return pa.input_stream(pa.BufferReader(data), compression="zstd").read()  # type: ignore[no-any-return]
    return gzip.decompress(data) if compression == "gzip" else data


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("form", FORMATS)
def test_the_file_holds_the_rows_and_the_manifest_describes_it(
    storage: Storage, tmp_path: Path, form: str, compression: str
) -> None:
    what = spec(form, compression=compression)
    result = run(storage, what)
    stored = (tmp_path / result.key).read_bytes()
    raw = unpacked(stored, what.encoding.codec.name)
    assert ids(form, raw) == [f"row-{number}" for number in range(30)]
    manifest = json.loads((tmp_path / f"{result.key}.manifest.json").read_bytes())
    assert manifest == {
        "version": 1,
        "key": what.key,
        "rows": 30,
        "bytes": len(stored),
        "rawBytes": len(raw),
        "sha256": hashlib.sha256(stored).hexdigest(),
        "format": form,
        "compression": compression,
        "columns": ["id", "n"],
        "nullColumns": [],
        "truncated": False,
        "tableName": "traces",
        "projectId": "p/1",
        "batchExportId": "e1",
        "attempt": 2,
        "ignored": [],
        "query": json.loads(what.query.model_dump_json(by_alias=True)),
        "cutoff": "2026-03-01T12:00:00.123Z",
        "finishedAt": "2026-03-01T12:05:00.000Z",
    }
    assert (result.rows, result.bytes, result.raw_bytes) == (30, len(stored), len(raw))
    assert result.sha256 == manifest["sha256"]
    assert files(tmp_path) == [result.key, f"{result.key}.manifest.json"]


def ids(form: str, data: bytes) -> list[str]:
    return [str(row["id"]) for row in files_reader.read(data, form).rows]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd")
def test_zstd_files_open_with_the_usual_tool(storage: Storage, tmp_path: Path) -> None:
    result = run(storage, spec(compression="zstd"), table(batches(200, 1000)))
    done = subprocess.run(["zstd", "-dc", tmp_path / result.key], capture_output=True, check=True)
    assert len(ids("CSV", done.stdout)) == 200_000


def test_parquet_is_packed_unless_it_is_asked_not_to(storage: Storage, tmp_path: Path) -> None:
    packed = pq.ParquetFile(tmp_path / run(storage, spec("PARQUET")).key).metadata.row_group(0).column(0).compression
    plain = spec("PARQUET", compression="none")
    unpacked = pq.ParquetFile(tmp_path / run(storage, plain).key).metadata.row_group(0).column(0).compression
    assert (packed, unpacked) == ("ZSTD", "UNCOMPRESSED")


def test_batches_are_cut_to_a_size(storage: Storage, tmp_path: Path) -> None:
    texts = ["x" * (1 << 20)] * 70
    rows = pa.RecordBatch.from_pydict({"id": texts, "n": list(range(70))})
    result = run(storage, spec("PARQUET"), table(iter([rows])))
    metadata = pq.ParquetFile(tmp_path / result.key).metadata
    sizes = [metadata.row_group(index).num_rows << 20 for index in range(metadata.num_row_groups)]
    assert sum(sizes) == 70 << 20
    assert max(sizes) <= BATCH_BYTES


def test_batches_that_grow_a_lot_are_cut_again(storage: Storage, tmp_path: Path) -> None:
    def enrich(batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch.set_column(0, "id", pa.array(["x" * (5 << 20)] * batch.num_rows))

    result = run(storage, spec("PARQUET"), Table(COLUMNS, batches(1, 30), [enrich], None))

    metadata = pq.ParquetFile(tmp_path / result.key).metadata
    rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sum(rows) == 30
    assert max(rows) * (5 << 20) <= 4 * BATCH_BYTES


@pytest.mark.parametrize("limit", [20, 32])
@pytest.mark.parametrize("form", FORMATS)
def test_a_row_that_is_too_large_is_rejected_by_its_id_and_leaves_nothing(
    storage: Storage, tmp_path: Path, form: str, limit: int
) -> None:
    def enrich(batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = ["x" * ((limit + 1) << 20) if each == "row-13" else "" for each in batch["id"].to_pylist()]
        return batch.append_column("text", pa.array(texts))

    asked = spec(form)
    options = OutputOptions(prefix="exports/", row_bytes=limit << 20)
    limited = replace(asked, encoding=replace(asked.encoding, options=options))
    columns = (*COLUMNS, Column("text", Kind.TEXT))
    with pytest.raises(Rejected, match=f"The row with the ID 'row-13' is too large: a row can have up to {limit} MiB"):
        run(storage, limited, Table(columns, batches(), [enrich], None))
    assert files(tmp_path) == []


def test_a_row_that_is_too_large_is_named_by_its_id_in_a_file_without_ids(storage: Storage, tmp_path: Path) -> None:
    def enrich(batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = ["x" * (33 << 20) if each == "row-13" else "" for each in batch["id"].to_pylist()]
        return batch.append_column("text", pa.array(texts))

    columns = (Column("text", Kind.TEXT), Column("n", Kind.INTEGER))
    with pytest.raises(Rejected, match="The row with the ID 'row-13' is too large"):
        run(storage, rows=Table(columns, batches(), [enrich], None))
    assert files(tmp_path) == []


@pytest.mark.parametrize("form", FORMATS)
def test_the_id_is_not_in_a_file_without_its_column(storage: Storage, tmp_path: Path, form: str) -> None:
    result = run(storage, spec(form), Table((Column("n", Kind.INTEGER),), batches(1, 3), [], None))
    read = files_reader.read((tmp_path / result.key).read_bytes(), form)
    assert read.columns == result.columns == ("n",)
    assert [int(row["n"]) for row in read.rows] == [0, 1, 2]


def test_without_rows_the_file_has_a_header(storage: Storage, tmp_path: Path) -> None:
    result = run(storage, rows=table(iter([])))
    assert (tmp_path / result.key).read_bytes() == b"id,n\r\n"
    assert (result.rows, result.columns) == (0, ("id", "n"))


def test_a_cut_is_told(storage: Storage) -> None:
    result = run(storage, rows=table(row_limit=25))
    assert (result.rows, result.truncated) == (25, True)
    result = run(storage, rows=table(row_limit=30))
    assert (result.rows, result.truncated) == (30, False)


def test_a_name_that_is_too_long_for_the_store_is_rejected_and_leaves_nothing(
    storage: Storage, tmp_path: Path, metrics: Metrics
) -> None:
    rest = len(f"{replace(spec(), export_id='').key}.manifest.json".removeprefix("exports/"))
    longest = replace(spec(), export_id="e" * (255 - rest))
    result = deliver(longest, table(), storage, Progress(), metrics, fence=lambda: None)
    assert files(tmp_path) == [result.key, f"{result.key}.manifest.json"]

    longer = replace(longest, export_id=f"{longest.export_id}e")
    with pytest.raises(Rejected, match="its name has 256 bytes, and the store allows 255"):
        deliver(longer, table(), storage, Progress(), metrics, fence=lambda: None)

    assert len(files(tmp_path)) == 2


def test_keys_of_the_query_that_are_unknown_are_logged_and_in_the_manifest(
    storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = [f"key-{number:02}" for number in range(12)]
    result = run(storage, spec("CSV", 2, **dict.fromkeys(unknown, "x")))
    manifest = json.loads((tmp_path / f"{result.key}.manifest.json").read_bytes())
    assert manifest["ignored"] == list(result.ignored) == unknown
    assert not set(unknown) & set(manifest["query"])
    (record,) = [each for each in caplog.records if "unknown" in each.getMessage()]
    assert "key-00, " in record.getMessage()
    assert record.getMessage().endswith(" and 2 more")
    assert record.__dict__["export_id"] == "e1"


def failing(error: BaseException) -> Iterator[pa.RecordBatch]:
    yield from batches()
    raise error


@pytest.mark.parametrize("error", [Unavailable("cut"), ZeroDivisionError(), Cancelled(), MemoryError()])
def test_a_source_that_fails_leaves_nothing(storage: Storage, tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        run(storage, rows=table(failing(error)))
    assert files(tmp_path) == []


def test_a_lost_lease_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    def fence() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        run(storage, fence=fence)
    assert files(tmp_path) == []


def test_the_fence_comes_before_the_object_is_visible(storage: Storage) -> None:
    seen: list[int | None] = []
    result = run(storage, fence=lambda: seen.append(storage.size(spec().key)))
    assert seen == [None]
    assert storage.size(spec().key) == result.bytes


def test_a_stopped_export_is_cancelled_and_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    progress = Progress()

    def endless() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(batches(1_000_000)):
            if number == 100:
                threading.Thread(target=progress.stop).start()
            yield batch

    with pytest.raises(Cancelled):
        run(storage, rows=table(endless()), progress=progress)
    assert files(tmp_path) == []


def test_an_upload_that_fails_stops_the_reading() -> None:
    read = 0

    def endless() -> Iterator[pa.RecordBatch]:
        nonlocal read
        for batch in batches(1_000_000, 20_000):
            read += 1
            yield batch

    with moto_server.running() as moto:
        moto.door.faults.append(Fault("PUT", "partNumber=2", "403 Forbidden", b"AccessDenied", times=1000))
        options = S3Options(
            endpoint=moto.bucket.endpoint,
            region="us-east-1",
            access_key_id="a",
            secret_access_key="b",
            force_path_style=True,
            part_size=5 << 20,
        )
        with pytest.raises(Unavailable, match="AccessDenied"):
            run(open_storage(f"s3://{moto.bucket.name}", options), rows=table(endless()))
        assert (moto.bucket.objects(), moto.bucket.uploads()) == ({}, [])
    assert read < 1_000
    assert not [thread for thread in threading.enumerate() if thread.name == "waybill-prefetch"]


def test_a_file_without_a_manifest_is_taken_back(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / f"{spec().key}.manifest.json" / "in the way").mkdir(parents=True)
    with pytest.raises(Unavailable):
        run(storage)
    assert files(tmp_path) == []


def test_a_file_without_a_manifest_is_left_to_the_next_attempt_when_the_lease_is_lost(
    storage: Storage, tmp_path: Path
) -> None:
    """The next attempt may have stored the same bytes already, and S3 could not tell them apart."""
    (tmp_path / f"{spec().key}.manifest.json" / "in the way").mkdir(parents=True)
    kept = iter([True, False])

    def fence() -> None:
        if not next(kept):
            raise Cancelled

    with pytest.raises(Unavailable):
        run(storage, fence=fence)
    assert files(tmp_path) == [spec().key]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


class Winner:
    """The attempt that takes over, runs and completes while another one sleeps."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        self.storage = storage
        self.folder = folder
        self.left: dict[str, bytes] = {}

    def complete(self) -> None:
        run(self.storage, spec(attempt=3), table(batches(5)))
        self.left = {name: data for name, data in contents(self.folder).items() if not name.endswith(".partial")}

    def complete_and_tell_the_time(self) -> datetime:
        self.complete()
        return FINISHED


@pytest.mark.parametrize("there", [False, True])
def test_who_sleeps_after_the_fence_changes_nothing_that_another_attempt_completed(
    storage: Storage, tmp_path: Path, there: bool
) -> None:
    if there:
        run(storage, spec(attempt=1))
    winner = Winner(storage, tmp_path)
    with pytest.raises(Unavailable, match="another attempt has written"):
        run(storage, fence=winner.complete)
    assert len(winner.left) == 2
    assert contents(tmp_path) == winner.left


@pytest.mark.parametrize("there", [False, True])
def test_who_sleeps_between_file_and_manifest_changes_neither(storage: Storage, tmp_path: Path, there: bool) -> None:
    if there:
        run(storage, spec(attempt=1))
    winner = Winner(storage, tmp_path)
    with pytest.raises(Unavailable, match="another attempt has written"):
        run(storage, clock=winner.complete_and_tell_the_time)
    assert len(winner.left) == 2
    assert contents(tmp_path) == winner.left


def test_progress_and_stages_are_counted(storage: Storage, metrics: Metrics) -> None:
    progress = Progress()
    result = deliver(spec(), table(), storage, progress, metrics, fence=lambda: None)
    assert (progress.rows, progress.bytes) == (30, result.bytes)
    stages = {sample.labels["stage"] for metric in metrics.stage_seconds.metric.collect() for sample in metric.samples}
    assert stages == {"read", "enrich", "wait", "encode", "compress", "checksum", "upload", "idle"}


def test_uploads_are_counted_by_how_they_end(storage: Storage, metrics: Metrics) -> None:
    def fence() -> None:
        raise Cancelled

    deliver(spec(), table(), storage, Progress(), metrics, fence=lambda: None)
    for _ in range(2):
        with pytest.raises(Cancelled):
            deliver(spec(), table(), storage, Progress(), metrics, fence=fence)

    ended = {
        outcome: metrics.registry.get_sample_value("waybill_uploads_total", {"outcome": outcome})
        for outcome in ("completed", "aborted")
    }
    assert ended == {"completed": 1, "aborted": 2}


@pytest.mark.parametrize(
    ("form", "compression", "expected"),
    [
        ("CSV", "none", "text/csv; charset=utf-8"),
        ("JSON", "none", "application/json; charset=utf-8"),
        ("JSONL", "none", "application/x-ndjson; charset=utf-8"),
        ("JSON", "gzip", "application/gzip"),
        ("CSV", "zstd", "application/zstd"),
        ("PARQUET", "gzip", "application/vnd.apache.parquet"),
    ],
)
def test_the_content_type_is_that_of_the_stored_bytes(form: str, compression: str, expected: str) -> None:
    assert spec(form, compression=compression).encoding.content_type == expected
