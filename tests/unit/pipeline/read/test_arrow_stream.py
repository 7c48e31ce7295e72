import io

import pyarrow as pa
import pytest

from config.errors import Unavailable
from pipeline.read.arrow_stream import END_OF_STREAM, PIECE_BYTES, read_stream


class CountingBody(io.BytesIO):
    """A response's body that records how much is read at a time."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.sizes: list[int] = []

    def read(self, amt: int | None = -1) -> bytes:
        self.sizes.append(amt or 0)
        return super().read(amt)


def stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write(batch)
        writer.write(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


LARGE = pa.record_batch({"text": pa.array(["x" * (1 << 20)] * 10)})


def test_a_large_batch_is_read_in_pieces() -> None:
    body = CountingBody(stream(LARGE))

    assert [batch.equals(LARGE) for batch in read_stream(body)] == [True, True]
    assert max(body.sizes) <= PIECE_BYTES


@pytest.mark.parametrize("kept", [PIECE_BYTES // 2, 3 * PIECE_BYTES, 11 * PIECE_BYTES, -len(END_OF_STREAM)])
def test_a_large_batch_that_is_cut_is_unavailable(kept: int) -> None:
    with pytest.raises(Unavailable, match="ended before it was complete"):
        list(read_stream(CountingBody(stream(LARGE)[:kept])))
