"""Pairs of keys and values, cut into pieces that stay the same where the pairs do.

A piece ends where a hash of a key says so, and not at a size, so that what is put in, taken out or changed in one
place changes the pieces there and leaves the others as they were.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import xxhash
import zstandard

from storage_node.backup.errors import BackupCorrupt

LEAST_BYTES = 1 << 20
MEAN_BYTES = 2 << 20
"""How much follows the least size on average."""
MOST_BYTES = 16 << 20
MAX_CONTENT_BYTES = 48 << 20
"""A piece may end with a large value; none is longer than this."""
_LENGTHS = struct.Struct("<II")
_ZSTD_LEVEL = 3


class Piece(NamedTuple):
    """Consecutive pairs: lengths of key and value (u32 each), key, value, again and again. name: SHA-256, hex."""

    name: str
    content: bytes


def pieces(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[Piece]:
    """Cut pairs, whose keys ascend, into pieces."""
    part = bytearray()
    for key, value in pairs:
        part += _LENGTHS.pack(len(key), len(value))
        part += key
        part += value
        size = len(part)
        if size >= LEAST_BYTES and (size >= MOST_BYTES or _ends_with(key, len(key) + len(value))):
            yield _piece(bytes(part))
            part.clear()
    if part:
        yield _piece(bytes(part))


def _ends_with(key: bytes, size_bytes: int) -> bool:
    """Whether a piece ends behind this pair: as likely as the pair is large."""
    return xxhash.xxh3_64_intdigest(key) * MEAN_BYTES < size_bytes << 64


def _piece(content: bytes) -> Piece:
    return Piece(hashlib.sha256(content).hexdigest(), content)


def pack(content: bytes) -> bytes:
    """A piece as it is stored."""
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)


def unpack(name: str, size_bytes: int, stored: bytes) -> bytes:
    """The content of a piece; raises BackupCorrupt if it is not what its name says."""
    try:
        # A frame says how much memory is to be had for it.
        if zstandard.frame_content_size(stored) != size_bytes:
            raise BackupCorrupt(f"object {name} has another size than its manifest says")
        content = zstandard.ZstdDecompressor().decompress(stored, max_output_size=size_bytes)
    except zstandard.ZstdError as error:
        raise BackupCorrupt(f"object {name} cannot be decompressed: {error}") from None
    if len(content) != size_bytes or hashlib.sha256(content).hexdigest() != name:
        raise BackupCorrupt(f"object {name} does not hold what its name says")
    return content
