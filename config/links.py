"""Declares how a download link is written and read: the ids of one export, sealed with a secret key."""

import base64
import hmac
from collections.abc import Iterator, Sequence
from itertools import count
from urllib.parse import quote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from config.settings import Settings

PATH = "/d/"
LONGEST_TOKEN = 6000
"""In characters; more than the longest ids need."""

_KEY_BYTES = 64
_PURPOSE = b"waybill download links"
_BLOCK_BYTES = 16


def make_exports_page(langfuse_url: str, project_id: str) -> str:
    """Return the URL of the project's page in Langfuse that lists its exports."""
    return f"{langfuse_url}/project/{quote(project_id, safe='')}/settings/exports"


class Links:
    """Writes links below a public URL with the first of its keys, and reads links written with any of them.

    A token is the ids, encrypted and authenticated with AES-SIV (RFC 5297) under a key derived from the secret, so
    every process that has the secret can read it, and nobody else can read or change it. AES-SIV is deterministic:
    an export always has the same link.
    """

    def __init__(self, public_url: str, keys: Sequence[bytes]) -> None:
        self._public_url = public_url
        self._keys = tuple(keys)
        self._ciphers = tuple(map(_derive_cipher, keys))

    def write(self, project_id: str, export_id: str) -> str:
        """Return the link of an export."""
        ids = f"{project_id}\0{export_id}".encode()
        # Padding hides the exact length of the ids.
        sealed = self._ciphers[0].encrypt(ids + bytes(-len(ids) % _BLOCK_BYTES), None)
        return f"{self._public_url}{PATH}{_to_text(sealed)}"

    def read(self, token: str) -> tuple[str, str] | None:
        """Return the project and the export of a token, or None if it was written with none of the keys."""
        if len(token) > LONGEST_TOKEN:
            return None
        try:
            sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            return None
        # The decoder skips characters that it does not know: only one text is the token of these bytes.
        if _to_text(sealed) != token:
            return None
        ids = self._open(sealed)
        if ids is None:
            return None
        project_id, _, export_id = ids.rstrip(b"\0").decode().partition("\0")
        return project_id, export_id

    def _open(self, sealed: bytes) -> bytes | None:
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed, None)
            except InvalidTag:
                continue
        return next((ids for key in self._keys if (ids := _open_old(key, sealed)) is not None), None)


def read_links(settings: Settings) -> Links | None:
    """Return the links that the settings ask for, or None without WAYBILL_PUBLIC_URL."""
    return None if settings.public_url is None else Links(settings.public_url, settings.secret_keys)


def _derive_cipher(secret: bytes) -> AESSIV:
    return AESSIV(HKDF(SHA256(), length=_KEY_BYTES, salt=None, info=_PURPOSE).derive(secret))


def _to_text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


# The rest of this module reads links that were emailed before AES-SIV, so that they work until they expire. Such a
# link lives for 168 hours at most: delete this, and its tests, in the release after the first that writes AES-SIV.


def _open_old(key: bytes, sealed: bytes) -> bytes | None:
    tag, encrypted = sealed[:_BLOCK_BYTES], sealed[_BLOCK_BYTES:]
    ids = bytes(one ^ other for one, other in zip(encrypted, _old_stream(key, tag), strict=False))
    expected = hmac.digest(key, b"tag\0" + ids, "sha256")[:_BLOCK_BYTES]
    return ids if hmac.compare_digest(expected, tag) else None


def _old_stream(key: bytes, tag: bytes) -> Iterator[int]:
    for block in count():
        yield from hmac.digest(key, b"stream\0" + tag + block.to_bytes(4, "big"), "sha256")
