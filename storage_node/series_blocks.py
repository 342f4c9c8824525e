"""Blocks of persisted series (`docs/format/index-keys.md`, 'Series block')."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

from common.errors import CorruptError

BLOCK_SERIES = 1024
KEY_PREFIX = b"s"
MAX_BLOCK_BYTES = 1 << 30
_VERSION = 1
_HEAD = struct.Struct("<BI")


@dataclass(frozen=True, slots=True, eq=False)
class SeriesBlock:
    """Up to BLOCK_SERIES consecutive series.

    known: bool (n,), False for an orphan, whose id is zeros and whose label set is empty.
    ids: uint8 (n, 16). lengths: uint32 (n,), bytes of each label set. labels: uint8, canonical label sets.
    """

    known: NDArray[np.bool_]
    ids: NDArray[np.uint8]
    lengths: NDArray[np.uint32]
    labels: NDArray[np.uint8]


def block_key(block: int) -> bytes:
    return KEY_PREFIX + struct.pack(">I", block)


def block_number(key: bytes) -> int:
    (number,) = struct.unpack(">I", key[len(KEY_PREFIX) :])
    return int(number)


def encode_block(block: SeriesBlock) -> bytes:
    parts = (
        _HEAD.pack(_VERSION, len(block.known)),
        block.known.astype(np.uint8).tobytes(),
        block.ids.tobytes(),
        block.lengths.astype("<u4").tobytes(),
        block.labels.tobytes(),
    )
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(b"".join(parts))


def decode_block(data: bytes, partition: int) -> SeriesBlock:
    """The inverse of `encode_block`; label sets are not looked into.

    Raises:
        CorruptError: the checksum fails, or lengths do not add up.
    """
    try:
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_BLOCK_BYTES)
    except zstandard.ZstdError as error:
        raise CorruptError(f"series block does not decompress: {error}", partition=partition) from None
    if len(raw) < _HEAD.size:
        raise CorruptError("series block is too short", partition=partition)
    version, n_series = _HEAD.unpack_from(raw)
    if version != _VERSION:
        raise CorruptError(f"series block has the unknown version {version}", partition=partition)
    fixed = _HEAD.size + n_series * (1 + 16 + 4)
    if not 0 < n_series <= BLOCK_SERIES or len(raw) < fixed:
        raise CorruptError("series block is too short", partition=partition)
    at = _HEAD.size
    known = np.frombuffer(raw, dtype=np.uint8, count=n_series, offset=at) != 0
    ids = np.frombuffer(raw, dtype=np.uint8, count=16 * n_series, offset=at + n_series).reshape(-1, 16)
    lengths = np.frombuffer(raw, dtype="<u4", count=n_series, offset=at + 17 * n_series)
    labels = np.frombuffer(raw, dtype=np.uint8, offset=fixed)
    if int(lengths.sum(dtype=np.int64)) != len(labels):
        raise CorruptError("lengths of a series block do not add up", partition=partition)
    return SeriesBlock(known, ids, lengths, labels)
