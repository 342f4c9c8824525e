"""One record of the log: a columnar batch of samples for one partition (`docs/format/log-record.md`)."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from common.errors import CorruptError
from common.kernels import record as kernels


@dataclass(frozen=True, slots=True, eq=False)
class RecordBatch:
    """What a record says, as columns.

    producer_id: random 64-bit number of the ingestor process that wrote the record; refs are its own.
    created_ms: the ingestor's clock when the record was made, Unix ms.

    Declarations, n_declared of them:
      declared_refs: uint32 (n_declared,), the ingestor's number of the series within this partition, from 0.
      declared_ids: uint8 (n_declared, 16), `common.labels.series_id`.
      label_offsets: int64 (n_declared + 1,) into `label_bytes`.
      label_bytes: uint8, canonical label sets one after another.
    Samples, in order of arrival; n_samples of them:
      refs: uint32 (n_samples,).
      timestamps: int64 (n_samples,), Unix ms.
      values: float64 (n_samples,), bit-exact.
    """

    producer_id: int
    created_ms: int
    declared_refs: NDArray[np.uint32]
    declared_ids: NDArray[np.uint8]
    label_offsets: NDArray[np.int64]
    label_bytes: NDArray[np.uint8]
    refs: NDArray[np.uint32]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]


HEADER_BYTES = 56
MAX_PAYLOAD_BYTES = 16 << 20
"""Upper limit of a payload before compression; bounds what decoding hostile bytes can allocate."""

_MAGIC = b"TABR"
_VERSION = 1
_KIND_SAMPLES = 1
_FLAG_ZSTD = 1
_FLAG_DOUBLE_DELTA = 2

_PREFIX = struct.Struct("<4sBBHQ")
_PREFIX_SEED = struct.Struct("<Q")
_BODY = struct.Struct("<QqIIIII4x")

_ZSTD_LEVEL = 1
# What one declaration and one sample take in a payload: at most, and at least; one bit more for each sample.
_MAX_DECLARATION_BYTES = 5 + 10 + kernels.ID_BYTES
_MIN_DECLARATION_BYTES = 1 + 1 + kernels.ID_BYTES
_MAX_SAMPLE_BYTES = 5 + 10 + 8
_MIN_SAMPLE_BYTES = 1 + 1 + 1

_REASONS = {
    kernels.BAD_VARINT: "a varint ends outside the payload or exceeds 64 bits",
    kernels.REF_OUT_OF_RANGE: "a ref is outside 32 bits",
    kernels.BAD_LABEL_LENGTHS: "label lengths do not add up",
    kernels.TRUNCATED: "the payload is too short for its counts",
    kernels.TRAILING_BYTES: "the payload is too long for its counts",
    kernels.BAD_LABEL_SET: "a label set is not canonical",
    kernels.BAD_UTF8: "a label is not UTF-8",
    kernels.BAD_MASK: "bits behind the last sample are set",
}


class _ThreadState(threading.local):
    """zstd contexts, which are costly to make and belong to one thread at a time."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=False)
        self.decompressor = zstandard.ZstdDecompressor()


_thread = _ThreadState()


def max_encoded_bytes(n_samples: int, n_declared: int, n_label_bytes: int) -> int:
    """Upper limit of the size of a record with these counts, whatever it holds."""
    samples = _MAX_SAMPLE_BYTES * n_samples + (n_samples + 7) // 8
    return HEADER_BYTES + samples + _MAX_DECLARATION_BYTES * n_declared + n_label_bytes


def encode_record(batch: RecordBatch) -> bytes:
    """Encode a batch as one record.

    Raises:
        ValueError: columns differ in length, or the payload would exceed MAX_PAYLOAD_BYTES.
    """
    n_declared, n_samples, n_label_bytes = len(batch.declared_refs), len(batch.refs), len(batch.label_bytes)
    if (
        len(batch.timestamps) != n_samples
        or len(batch.values) != n_samples
        or batch.declared_ids.shape != (n_declared, kernels.ID_BYTES)
        or len(batch.label_offsets) != n_declared + 1
        or batch.label_offsets[0] != 0
        or batch.label_offsets[-1] != n_label_bytes
    ):
        raise ValueError("the columns of a record differ in length")
    room = max_encoded_bytes(n_samples, n_declared, n_label_bytes) - HEADER_BYTES
    if room > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a record of {n_samples} samples and {n_declared} declarations is too large")
    out = np.empty(room, dtype=np.uint8)
    size = kernels.encode_payload(
        batch.declared_refs,
        batch.declared_ids,
        batch.label_offsets,
        batch.label_bytes,
        batch.refs,
        batch.timestamps,
        batch.values,
        batch.values.view(np.uint64),
        batch.created_ms,
        out,
    )
    flags = 0
    if size < 0:
        size = -size
        flags = _FLAG_DOUBLE_DELTA
    payload: memoryview | bytes = out[:size].data
    packed = _thread.compressor.compress(payload)
    if len(packed) < size:
        payload = packed
        flags |= _FLAG_ZSTD
    body = _BODY.pack(
        batch.producer_id, batch.created_ms, n_declared, n_samples, n_label_bytes, size, len(payload)
    )
    body += payload
    prefix = _PREFIX.pack(_MAGIC, _VERSION, _KIND_SAMPLES, flags, 0)
    checksum = xxhash.xxh3_64_intdigest(body, _PREFIX_SEED.unpack_from(prefix)[0])
    return _PREFIX.pack(_MAGIC, _VERSION, _KIND_SAMPLES, flags, checksum) + body


def decode_record(data: bytes, *, partition: int | None = None, offset: int | None = None) -> RecordBatch:
    """Decode a record; `partition` and `offset` only go into the error.

    Whatever the bytes are, this takes time and memory bounded by MAX_PAYLOAD_BYTES. Label sets are checked to be
    canonical; that ids are their hashes is not.

    Raises:
        CorruptError: the bytes are not a whole record of a known version and kind.
    """
    try:
        return _decode(data)
    except _Corrupt as error:
        raise CorruptError(str(error), partition=partition, offset=offset) from None


class _Corrupt(Exception):
    """Why bytes are not a record; becomes a CorruptError with the place."""


def _decode(data: bytes) -> RecordBatch:
    if len(data) < HEADER_BYTES:
        raise _Corrupt(f"{len(data)} bytes are less than a header")
    magic, version, kind, flags, checksum = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise _Corrupt("the record does not begin with 'TABR'")
    if version != _VERSION:
        raise _Corrupt(f"unknown format version {version}")
    body = memoryview(data)[_PREFIX.size :]
    if xxhash.xxh3_64_intdigest(body, _PREFIX_SEED.unpack_from(data)[0]) != checksum:
        raise _Corrupt("the checksum does not match")
    if kind != _KIND_SAMPLES:
        raise _Corrupt(f"unknown kind of record {kind}")
    if flags & ~(_FLAG_ZSTD | _FLAG_DOUBLE_DELTA):
        raise _Corrupt(f"unknown flags {flags:#06x}")
    producer_id, created_ms, n_declared, n_samples, n_label_bytes, size, packed_size = _BODY.unpack_from(body)
    if packed_size != len(data) - HEADER_BYTES:
        raise _Corrupt(f"the payload has {len(data) - HEADER_BYTES} bytes instead of {packed_size}")
    least = n_declared * _MIN_DECLARATION_BYTES + n_samples * _MIN_SAMPLE_BYTES + n_label_bytes
    if size > MAX_PAYLOAD_BYTES or size < least:
        raise _Corrupt("the payload's size does not fit its counts")
    payload = _unpacked(body[_BODY.size :], size, flags)

    batch = RecordBatch(
        producer_id=producer_id,
        created_ms=created_ms,
        declared_refs=np.empty(n_declared, dtype=np.uint32),
        declared_ids=np.empty((n_declared, kernels.ID_BYTES), dtype=np.uint8),
        label_offsets=np.empty(n_declared + 1, dtype=np.int64),
        label_bytes=np.empty(n_label_bytes, dtype=np.uint8),
        refs=np.empty(n_samples, dtype=np.uint32),
        timestamps=np.empty(n_samples, dtype=np.int64),
        values=np.empty(n_samples, dtype=np.float64),
    )
    outcome = kernels.decode_payload(
        np.frombuffer(payload, dtype=np.uint8),
        created_ms,
        bool(flags & _FLAG_DOUBLE_DELTA),
        batch.declared_refs,
        batch.declared_ids,
        batch.label_offsets,
        batch.label_bytes,
        batch.refs,
        batch.timestamps,
        batch.values,
        batch.values.view(np.uint64),
    )
    if outcome == kernels.OK and n_declared:
        outcome = kernels.check_label_sets(batch.label_offsets, batch.label_bytes)
    if outcome != kernels.OK:
        raise _Corrupt(_REASONS[outcome])
    return batch


def _unpacked(payload: memoryview, size: int, flags: int) -> memoryview | bytes:
    if not flags & _FLAG_ZSTD:
        if len(payload) != size:
            raise _Corrupt(f"the payload has {len(payload)} bytes instead of {size}")
        return payload
    try:
        # The frame's own claim decides what is allocated, so it is looked at first.
        if zstandard.frame_content_size(payload) != size:
            raise _Corrupt("the compressed payload has another size than the header says")
        unpacked = _thread.decompressor.decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _Corrupt(f"the payload cannot be decompressed: {error}") from None
    if len(unpacked) != size:
        raise _Corrupt("the compressed payload has another size than the header says")
    return unpacked
