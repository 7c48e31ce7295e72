from typing import get_args

from pipeline.compress import COMPRESSORS
from pipeline.encode import ENCODERS
from pipeline.request import ExportQuery
from pipeline.types import CODECS, FORMATS


def test_every_format_has_an_encoder() -> None:
    assert list(ENCODERS) == list(FORMATS)
    assert len({each.extension for each in FORMATS.values()}) == len(FORMATS)


def test_every_codec_has_a_compressor_and_can_be_requested() -> None:
    assert list(COMPRESSORS) == list(CODECS) == list(get_args(ExportQuery.model_fields["compression"].annotation))
