from collections.abc import Iterator

import pyarrow as pa
import pytest

from embedded.clickhouse.arrow_join import join_streams

SCHEMA = pa.schema([("n", pa.int64()), ("s", pa.dictionary(pa.int32(), pa.string()))])


def stream(*numbers: int) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        for number in numbers:
            words = pa.array([f"word {number}"]).dictionary_encode()
            writer.write_batch(pa.record_batch([[number], words], schema=SCHEMA))
    return memoryview(sink.getvalue().to_pybytes())


def join(*streams: memoryview) -> bytes:
    pieces: Iterator[memoryview] = iter(streams)
    return b"".join(join_streams(pieces))


def test_streams_become_one_with_all_batches_and_their_dictionaries() -> None:
    with pa.ipc.open_stream(join(stream(1), stream(2), stream(3))) as reader:
        rows = [row for batch in reader for row in batch.to_pylist()]
    assert rows == [{"n": number, "s": f"word {number}"} for number in (1, 2, 3)]


def test_one_stream_is_unchanged() -> None:
    assert join(stream(1, 2)) == bytes(stream(1, 2))


def test_a_stream_without_batches_is_unchanged() -> None:
    assert join(stream()) == bytes(stream())


@pytest.mark.parametrize("piece", [b"", b"text", bytes(stream(1))[:-8]])
def test_an_incomplete_stream_is_rejected(piece: bytes) -> None:
    with pytest.raises(ValueError, match="not a complete Arrow IPC stream"):
        join(memoryview(piece))
