"""Frames: the bytes of an answer between a storage node and a query server (`docs/format/read-api.md`).

    column ──► column_frames() ──► frames of at most CHUNK_BYTES ──► FrameReader.fill() ──► column

A column is sent in parts, so that neither side holds it twice; each part is checksummed, and compressed if that
pays.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any

import numpy as np
import orjson
import xxhash
import zstandard
from numpy.typing import NDArray

from common.errors import RetryableError

MEDIA_TYPE = "application/vnd.tabor.columns"
CHUNK_BYTES = 512 << 10
MAX_FRAME_BYTES = 16 << 20
"""Upper limit of one frame; what a receiver allocates before it has seen a checksum."""

_HEADER = struct.Struct("<BBHIIQ")
_FIELDS = struct.Struct("<BBHII")
_FLAG_ZSTD = 1
_ZSTD_LEVEL = 1
# Below this size, and above this share of the original, compression costs more than it saves.
_MIN_PACKED_BYTES = 256
_WORTH = 7 / 8


class WireError(RetryableError):
    """An answer ends early, is garbled, or does not follow the format; another node may do better."""


class Kind(IntEnum):
    KEEP_ALIVE = 0
    HEADER = 1
    STRING_LENGTHS = 2
    STRING_BYTES = 3
    CODES = 4
    COUNTS = 5
    TIMESTAMPS = 6
    VALUES = 7
    END = 8
    ERROR = 9
    HISTOGRAM_POSITIONS = 10
    HISTOGRAM_LENGTHS = 11
    HISTOGRAM_BYTES = 12
    PAIRS = 13
    FLAGS = 14
    PRESENT = 15
    CELLS = 16


class _ThreadState(threading.local):
    """zstd contexts, which are costly to make and belong to one thread at a time."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=False)
        self.decompressor = zstandard.ZstdDecompressor()


_thread = _ThreadState()


def frame(kind: Kind, payload: bytes | memoryview = b"") -> bytes:
    """One frame; the payload is compressed if it gets markedly smaller."""
    size, flags, stored = len(payload), 0, payload
    assert size <= MAX_FRAME_BYTES
    if size >= _MIN_PACKED_BYTES:
        packed = _thread.compressor.compress(payload)
        if len(packed) < _WORTH * size:
            stored, flags = packed, _FLAG_ZSTD
    fields = _FIELDS.pack(kind, flags, 0, size, len(stored))
    return b"".join((fields, _checksum(fields, stored), stored))


def json_frame(kind: Kind, content: object) -> bytes:
    """A frame whose payload is JSON."""
    return frame(kind, orjson.dumps(content))


def column_frames(kind: Kind, column: NDArray[Any]) -> Iterator[bytes]:
    """A column as frames. Timestamps go as differences, the first of each frame against 0, modulo 2^64; of CELLS
    each frame has all first bytes, then all second ones, and so on.
    """
    items = CHUNK_BYTES // column.itemsize
    for first in range(0, len(column), items):
        part = np.ascontiguousarray(column[first : first + items])
        if kind is Kind.TIMESTAMPS:
            # Equal for regular scrapes, so that next to nothing is left of them.
            part = np.diff(part, prepend=np.int64(0))
        if kind is Kind.CELLS:
            # The bytes of equal weight together: signs, exponents and the zeros of round numbers compress.
            part = np.ascontiguousarray(part.view(np.uint8).reshape(-1, part.itemsize).T)
        yield frame(kind, part.data.cast("B"))


class FrameReader:
    """Takes an answer apart. `chunks` are its bytes as they arrive.

    Raises WireError from every method for whatever is not as the format says.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = memoryview(b"")

    def next(self) -> tuple[Kind, memoryview]:
        """Kind and payload of the next frame that is not a keep-alive."""
        while True:
            head = self._exactly(_HEADER.size)
            kind, flags, zero, size, stored_size, _ = _HEADER.unpack(head)
            if zero or flags & ~_FLAG_ZSTD or kind not in Kind._value2member_map_:
                raise WireError("the answer holds a frame of an unknown kind")
            if max(size, stored_size) > MAX_FRAME_BYTES or (not flags and size != stored_size):
                raise WireError("the answer holds a frame of an impossible size")
            stored = self._exactly(stored_size)
            if _checksum(head[: _FIELDS.size], stored) != head[_FIELDS.size :]:
                raise WireError("the checksum of a frame does not match")
            if kind != Kind.KEEP_ALIVE:
                return Kind(kind), _unpacked(stored, size) if flags else stored

    def expect(self, kind: Kind) -> memoryview:
        """Payload of the next frame, which must be of this kind."""
        found, payload = self.next()
        if found is not kind:
            raise WireError(f"the answer has a frame {found.name} where {kind.name} belongs")
        return payload

    def end(self) -> None:
        """Read the last frame; nothing may follow. The connection can then be used again."""
        self.expect(Kind.END)
        if len(self._chunk) or any(len(chunk) for chunk in self._chunks):
            raise WireError("something follows the end of the answer")

    def fill(self, kind: Kind, out: NDArray[Any]) -> None:
        """Fill a column, little-endian as sent, from the frames that follow."""
        at = 0
        while at < len(out):
            payload = self.expect(kind)
            if len(payload) % out.itemsize or not 0 < len(payload) // out.itemsize <= len(out) - at:
                raise WireError(f"the column {kind.name} has another length than announced")
            part = np.frombuffer(payload, dtype=out.dtype)
            into = out[at : at + len(part)]
            if kind is Kind.TIMESTAMPS:
                np.cumsum(part, out=into)
            elif kind is Kind.CELLS:
                planes = np.frombuffer(payload, dtype=np.uint8).reshape(out.itemsize, -1)
                into.view(np.uint8).reshape(-1, out.itemsize)[:] = planes.T
            else:
                into[:] = part
            at += len(part)

    def _exactly(self, size: int) -> memoryview:
        if len(self._chunk) >= size:
            found, self._chunk = self._chunk[:size], self._chunk[size:]
            return found
        out = bytearray(size)
        at = 0
        while at < size:
            if not len(self._chunk):
                chunk = next(self._chunks, None)
                if chunk is None:
                    raise WireError("the answer ends early")
                self._chunk = memoryview(chunk)
                continue
            part = self._chunk[: size - at]
            out[at : at + len(part)] = part
            self._chunk = self._chunk[len(part) :]
            at += len(part)
        return memoryview(out)


def parse_object(payload: memoryview) -> dict[str, Any]:
    """A payload that is a JSON object; raises WireError."""
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise WireError("a frame that should be JSON is not") from None
    if not isinstance(found, dict):
        raise WireError("a frame that should be a JSON object is not")
    return found


def _unpacked(stored: memoryview, size: int) -> memoryview:
    try:
        # The frame's own claim decides what is allocated, so it is looked at first.
        if zstandard.frame_content_size(stored) != size:
            raise WireError("a compressed frame has another size than it says")
        unpacked = _thread.decompressor.decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise WireError(f"a frame cannot be decompressed: {error}") from None
    if len(unpacked) != size:
        raise WireError("a compressed frame has another size than it says")
    return memoryview(unpacked)


def _checksum(fields: bytes | memoryview, stored: bytes | memoryview) -> bytes:
    """xxh3-64 of the header's fields and the payload as stored, little-endian."""
    hasher = xxhash.xxh3_64(fields)
    hasher.update(stored)
    return hasher.intdigest().to_bytes(8, "little")
