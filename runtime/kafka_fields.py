"""Reads the fields of one Kafka record, and says exactly what is wrong with a record that can't be read."""

from dataclasses import dataclass

Headers = tuple[tuple[str, bytes | None], ...]

_LONGEST_VARINT = 10


class Undecodable(ValueError):
    """Bytes from a broker can't be decoded; the text is the reason."""


@dataclass
class Reader:
    """Reads the fields of a record one after another; every method raises Undecodable."""

    data: bytes
    position: int = 0
    start: int = 0
    """Where the last number began."""

    def read_varint(self) -> int:
        """Read a zigzag number of up to 64 bits."""
        self.start, number = self.position, 0
        for shift in range(0, 7 * _LONGEST_VARINT, 7):
            if self.position >= len(self.data):
                raise Undecodable("a record ends too early")
            byte = self.data[self.position]
            self.position += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 (the bit that says that more bytes follow)
                return (number >> 1) ^ -(number & 1)
        raise Undecodable("a record has a number of more than 64 bits")

    def take(self, size: int) -> bytes:
        """Read this many bytes."""
        if not 0 <= size <= len(self.data) - self.position:
            raise Undecodable(f"a record says that {size} bytes follow, but {len(self.data) - self.position} do")
        self.position += size
        return self.data[self.position - size : self.position]

    def take_nullable(self) -> bytes | None:
        """Read a size and that many bytes; a negative size stands for null."""
        size = self.read_varint()
        return None if size < 0 else self.take(size)


def read_content(reader: Reader) -> tuple[bytes | None, bytes | None, Headers, str | None]:
    """Read key, value and headers to the end of a record, and what is wrong with the names of its headers.

    Names that are not UTF-8 are escaped; raises Undecodable when the record has another structure.
    """
    key, value = reader.take_nullable(), reader.take_nullable()
    count, reason, headers = reader.read_varint(), None, []
    if not 0 <= count <= len(reader.data):
        raise Undecodable(f"a record says that it has {count} headers")
    for _ in range(count):
        raw = reader.take(reader.read_varint())
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            name, reason = raw.decode(errors="backslashreplace"), f"the name of a header is not UTF-8: {raw[:100]!r}"
        headers.append((name, reader.take_nullable()))
    if reader.position != len(reader.data):
        raise Undecodable(f"a record has {len(reader.data) - reader.position} bytes too many")
    return key, value, tuple(headers), reason
