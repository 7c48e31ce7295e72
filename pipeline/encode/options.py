"""Names what an encoder is told besides the rows, and what it gives back."""

from dataclasses import dataclass

Chunk = bytes | memoryview
"""A piece of a file, of a few MiB; a view is of memory that nobody changes."""


@dataclass(frozen=True)
class EncodeOptions:
    """How to write a file: its compression, for formats that pack themselves, and whether CSV cells are made safe."""

    compression: str = "none"
    neutralise: bool = True
