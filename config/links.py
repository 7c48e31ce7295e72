"""Declares how a download link is written and read: the ids of one export, sealed with a secret key."""

import base64
import hmac
from collections.abc import Iterator, Sequence
from itertools import count

from config.settings import Settings

PATH = "/d/"
LONGEST_TOKEN = 6000
"""More characters than the longest ids need."""

_TAG_BYTES = 16
_STEP_BYTES = 16


class Links:
    """Writes links below a public URL with the first of its keys, and reads those of all.

    A token is the ids, encrypted and authenticated by the key alone (a synthetic IV made with HMAC-SHA256, which also
    makes the stream), so every process that has the key can read it, and nobody else learns or changes anything. The
    same export always has the same link.
    """

    def __init__(self, public_url: str, keys: Sequence[bytes]) -> None:
        self._public_url = public_url
        self._keys = tuple(keys)

    def write(self, project_id: str, export_id: str) -> str:
        """Give the link of an export."""
        ids = f"{project_id}\0{export_id}".encode()
        # Padded, so that the length of a link tells little of its ids.
        return f"{self._public_url}{PATH}{_seal(self._keys[0], ids + bytes(-len(ids) % _STEP_BYTES))}"

    def read(self, token: str) -> tuple[str, str] | None:
        """Give the project and the export of a token, or None if none of our keys has written it."""
        if len(token) > LONGEST_TOKEN:
            return None
        try:
            sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            return None
        for key in self._keys:
            ids = _crypt(key, sealed[:_TAG_BYTES], sealed[_TAG_BYTES:])
            # To seal them again checks all at once: the tag, and that there is no other way to write the token.
            if hmac.compare_digest(_seal(key, ids), token):
                project_id, _, export_id = ids.rstrip(b"\0").decode().partition("\0")
                return project_id, export_id
        return None


def read_links(settings: Settings) -> Links | None:
    """Give the links that the settings ask for, None without WAYBILL_PUBLIC_URL."""
    return None if settings.public_url is None else Links(settings.public_url, settings.secret_keys)


def _seal(key: bytes, ids: bytes) -> str:
    tag = hmac.digest(key, b"tag\0" + ids, "sha256")[:_TAG_BYTES]
    return base64.urlsafe_b64encode(tag + _crypt(key, tag, ids)).rstrip(b"=").decode()


def _crypt(key: bytes, tag: bytes, text: bytes) -> bytes:
    """Encrypt or decrypt: both are the same."""
    return bytes(one ^ other for one, other in zip(text, _stream(key, tag), strict=False))


def _stream(key: bytes, tag: bytes) -> Iterator[int]:
    for block in count():
        yield from hmac.digest(key, b"stream\0" + tag + block.to_bytes(4, "big"), "sha256")
