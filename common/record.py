"""One record of the log: a columnar batch of samples for one partition (`docs/format/log-record.md`)."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from common.attachments import NO_ATTACHMENTS, Attachments
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
    attached: rows of other kinds, which come after the samples.
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
    attached: Attachments = NO_ATTACHMENTS

    def says_nothing(self) -> bool:
        """Whether it is a mark: replicas remember their digests at its offset, to be compared."""
        return not (len(self.refs) or len(self.declared_refs) or len(self.attached))


NOTHING = RecordBatch(
    producer_id=0,
    created_ms=0,
    declared_refs=np.zeros(0, dtype=np.uint32),
    declared_ids=np.zeros((0, kernels.ID_BYTES), dtype=np.uint8),
    label_offsets=np.zeros(1, dtype=np.int64),
    label_bytes=np.zeros(0, dtype=np.uint8),
    refs=np.zeros(0, dtype=np.uint32),
    timestamps=np.zeros(0, dtype=np.int64),
    values=np.zeros(0, dtype=np.float64),
)
"""A record of nothing: to put attachments into, or a mark in the log."""
HEADER_BYTES = 56
MAX_PAYLOAD_BYTES = 16 << 20
"""Upper limit of a payload before compression; bounds what decoding hostile bytes can allocate."""

_MAGIC = b"TABR"
_VERSION = 1
_KIND_SAMPLES = 1
_FLAG_ZSTD = 1
_FLAG_DOUBLE_DELTA = 2
_FLAG_ATTACHED = 4

_PREFIX = struct.Struct("<4sBBHQ")
_PREFIX_SEED = struct.Struct("<Q")
_BODY = struct.Struct("<QqIIIIII")
_HEADER = struct.Struct("<4sBBHQ" + "QqIIIIII")

_DECODED_TOGETHER_BYTES = 4 << 20
"""Payloads that are decoded in one go, before compression; bounds what many hostile records can allocate."""

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


Count = TypeVar("Count", int, NDArray[np.int64])


def max_encoded_bytes(n_samples: Count, n_declared: Count, n_label_bytes: Count) -> Count:
    """Upper limit of the size of a record with these counts, whatever it holds; or of many."""
    samples = _MAX_SAMPLE_BYTES * n_samples + (n_samples + 7) // 8
    return HEADER_BYTES + samples + _MAX_DECLARATION_BYTES * n_declared + n_label_bytes


def encode_record(batch: RecordBatch) -> bytes:
    """Encode a batch as one record.

    Raises:
        ValueError: columns differ in length, or the payload would exceed MAX_PAYLOAD_BYTES.
    """
    cuts = np.array([[0, len(batch.declared_refs), 0, len(batch.refs)]], dtype=np.int64)
    return encode_records(batch, cuts, {0: batch.attached})[0]


def encode_records(
    batch: RecordBatch, cuts: NDArray[np.int64], attached: Mapping[int, Attachments] = MappingProxyType({})
) -> list[bytes]:
    """Encode parts of a batch as one record each.

    cuts: int64 (n_records, 4), of each record the half-open ranges of declarations [0], [1] and samples [2], [3].
    attached: what goes with a record, by its position; `batch.attached` is not looked at.

    Raises:
        ValueError: columns differ in length, or a payload would exceed MAX_PAYLOAD_BYTES.
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
    counts = np.empty((len(cuts), 3), dtype=np.int64)
    counts[:, 0] = cuts[:, 1] - cuts[:, 0]
    counts[:, 1] = cuts[:, 3] - cuts[:, 2]
    counts[:, 2] = batch.label_offsets[cuts[:, 1]] - batch.label_offsets[cuts[:, 0]]
    rooms = max_encoded_bytes(counts[:, 1], counts[:, 0], counts[:, 2]) - HEADER_BYTES
    largest = int(np.argmax(rooms))
    if rooms[largest] > MAX_PAYLOAD_BYTES:
        declared, samples, _ = counts[largest].tolist()
        raise ValueError(f"a record of {samples} samples and {declared} declarations is too large")
    out = np.empty(int(rooms.sum()), dtype=np.uint8)
    ends = np.empty(len(cuts), dtype=np.int64)
    kernels.encode_payloads(
        cuts,
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
        ends,
    )
    payloads = out.data
    records = []
    start = 0
    for i, (end, row) in enumerate(zip(ends.tolist(), counts.tolist(), strict=True)):
        flags = _FLAG_DOUBLE_DELTA if end < 0 else 0
        section = attached[i].encode(batch.created_ms) if len(attached.get(i, ())) else b""
        records.append(_sealed(batch, row, payloads[start : abs(end)], section, flags))
        start = abs(end)
    return records


def _sealed(
    batch: RecordBatch, counts: list[int], payload: memoryview | bytes, section: bytes, flags: int
) -> bytes:
    """A record of this payload: compressed if that makes it smaller, with header and checksum."""
    if section:
        payload = bytes(payload) + section
        flags |= _FLAG_ATTACHED
    size = len(payload)
    if size > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a record of {size} bytes is too large")
    packed = _thread.compressor.compress(payload)
    if len(packed) < size:
        payload = packed
        flags |= _FLAG_ZSTD
    body = _BODY.pack(batch.producer_id, batch.created_ms, *counts, size, len(payload), len(section)) + payload
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
    decoded = next(decode_records([data]))
    if decoded.faults:
        raise CorruptError(decoded.faults[0], partition=partition, offset=offset)
    return decoded.batch(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedRecords:
    """Records that were decoded together, n of them: their columns one after another.

    producer_ids, created_ms, n_declared: of each record. faults: what is wrong with a record, by its position.
    attached: what goes with a record, by its position, where there is something.
    offsets: int64 (n + 1, 3), where the declarations, samples and label bytes of each record begin.
    marks: positions of records that are marks; see `RecordBatch.says_nothing`.
    """

    producer_ids: list[int]
    created_ms: list[int]
    n_declared: list[int]
    offsets: NDArray[np.int64]
    faults: dict[int, str]
    attached: dict[int, Attachments]
    columns: RecordBatch
    marks: frozenset[int]

    def __len__(self) -> int:
        return len(self.producer_ids)

    def batch(self, first: int, last: int) -> RecordBatch:
        """Records [first, last) as if they were one by the first's producer, made when the latest was made.

        Only the last of them may have attachments.
        """
        (declared, start, label), (declared_end, end, label_end) = self.offsets[[first, last]].tolist()
        columns = self.columns
        return RecordBatch(
            producer_id=self.producer_ids[first],
            created_ms=max(self.created_ms[first:last]),
            declared_refs=columns.declared_refs[declared:declared_end],
            declared_ids=columns.declared_ids[declared:declared_end],
            label_offsets=columns.label_offsets[declared : declared_end + 1] - label,
            label_bytes=columns.label_bytes[label:label_end],
            refs=columns.refs[start:end],
            timestamps=columns.timestamps[start:end],
            values=columns.values[start:end],
            attached=self.attached.get(last - 1, NO_ATTACHMENTS),
        )


def decode_records(values: Sequence[bytes]) -> Iterator[DecodedRecords]:
    """Decode records, in order, as many at a time as have room in a few MiB, but at least one.

    Each takes time and memory bounded by MAX_PAYLOAD_BYTES, see `decode_record`.
    """
    rows: list[tuple[int, int, int, int, int, int]] = []
    payloads: list[memoryview | bytes] = []
    producer_ids: list[int] = []
    faults: dict[int, str] = {}
    attached: dict[int, Attachments] = {}
    n_bytes = 0
    for data in values:
        fault, section = None, NO_ATTACHMENTS
        try:
            producer_id, row, payload, section = _opened(data)
        except _Corrupt as error:
            fault = str(error)
            producer_id, row, payload = 0, (0, 0, 0, 0, 0, 0), b""
        if rows and n_bytes + len(payload) > _DECODED_TOGETHER_BYTES:
            yield _decoded(rows, payloads, producer_ids, faults, attached)
            rows, payloads, producer_ids, n_bytes = [], [], [], 0
            faults, attached = {}, {}
        if fault is not None:
            faults[len(rows)] = fault
        if len(section):
            attached[len(rows)] = section
        rows.append(row)
        payloads.append(payload)
        producer_ids.append(producer_id)
        n_bytes += len(payload) + len(section.data)
    if rows:
        yield _decoded(rows, payloads, producer_ids, faults, attached)


def _decoded(
    rows: list[tuple[int, int, int, int, int, int]],
    payloads: list[memoryview | bytes],
    producer_ids: list[int],
    faults: dict[int, str],
    attached: dict[int, Attachments],
) -> DecodedRecords:
    """rows: of each record its declarations, samples, label bytes, size, created_ms, 1 for second differences."""
    table = np.array(rows, dtype=np.int64)
    offsets = np.zeros((len(rows) + 1, 3), dtype=np.int64)
    np.cumsum(table[:, :3], axis=0, out=offsets[1:])
    places = np.ascontiguousarray(table[:, 3:])
    np.cumsum(table[:, 3], out=places[:, 0])
    n_declared, n_samples, n_label_bytes = offsets[-1].tolist()
    columns = RecordBatch(
        producer_id=producer_ids[0],
        created_ms=rows[0][4],
        declared_refs=np.empty(n_declared, dtype=np.uint32),
        declared_ids=np.empty((n_declared, kernels.ID_BYTES), dtype=np.uint8),
        label_offsets=np.empty(n_declared + 1, dtype=np.int64),
        label_bytes=np.empty(n_label_bytes, dtype=np.uint8),
        refs=np.empty(n_samples, dtype=np.uint32),
        timestamps=np.empty(n_samples, dtype=np.int64),
        values=np.empty(n_samples, dtype=np.float64),
    )
    statuses = np.empty(len(rows), dtype=np.int64)
    kernels.decode_payloads(
        np.frombuffer(payloads[0] if len(payloads) == 1 else b"".join(payloads), dtype=np.uint8),
        places,
        offsets,
        columns.declared_refs,
        columns.declared_ids,
        columns.label_offsets,
        columns.label_bytes,
        columns.refs,
        columns.timestamps,
        columns.values,
        columns.values.view(np.uint64),
        statuses,
    )
    for i in np.flatnonzero(statuses).tolist():
        faults[i] = _REASONS[int(statuses[i])]
    silent = np.flatnonzero((offsets[1:] == offsets[:-1]).all(axis=1)).tolist()
    marks = frozenset(silent) - attached.keys() - faults.keys()
    n_declared = [row[0] for row in rows]
    return DecodedRecords(
        producer_ids, [row[4] for row in rows], n_declared, offsets, faults, attached, columns, marks
    )


class _Corrupt(Exception):
    """Why bytes are not a record; becomes a CorruptError with the place."""


def _opened(data: bytes) -> tuple[int, tuple[int, int, int, int, int, int], memoryview | bytes, Attachments]:
    """Check the header; returns the producer_id, the row that `_decoded` wants, and the payload, decompressed.

    Of the payload the attachments are split off.
    """
    if len(data) < HEADER_BYTES:
        raise _Corrupt(f"{len(data)} bytes are less than a header")
    (
        magic, version, kind, flags, checksum,
        producer_id, created_ms, n_declared, n_samples, n_label_bytes, size, packed_size, attached_size,
    ) = _HEADER.unpack_from(data)  # fmt: skip
    if magic != _MAGIC:
        raise _Corrupt("the record does not begin with 'TABR'")
    if version != _VERSION:
        raise _Corrupt(f"unknown format version {version}")
    view = memoryview(data)
    if xxhash.xxh3_64_intdigest(view[_PREFIX.size :], _PREFIX_SEED.unpack_from(data)[0]) != checksum:
        raise _Corrupt("the checksum does not match")
    if kind != _KIND_SAMPLES:
        raise _Corrupt(f"unknown kind of record {kind}")
    if flags & ~(_FLAG_ZSTD | _FLAG_DOUBLE_DELTA | _FLAG_ATTACHED):
        raise _Corrupt(f"unknown flags {flags:#06x}")
    if packed_size != len(data) - HEADER_BYTES:
        raise _Corrupt(f"the payload has {len(data) - HEADER_BYTES} bytes instead of {packed_size}")
    if not flags & _FLAG_ATTACHED:
        attached_size = 0
    least = attached_size + n_declared * _MIN_DECLARATION_BYTES + n_samples * _MIN_SAMPLE_BYTES + n_label_bytes
    if size > MAX_PAYLOAD_BYTES or size < least:
        raise _Corrupt("the payload's size does not fit its counts")
    payload = _unpacked(view[HEADER_BYTES:], size, flags)
    double = int(bool(flags & _FLAG_DOUBLE_DELTA))
    attached = NO_ATTACHMENTS
    if flags & _FLAG_ATTACHED:
        size -= attached_size
        try:
            attached = Attachments.decode(payload[size:], created_ms)
        except ValueError as error:
            raise _Corrupt(str(error)) from None
        payload = payload[:size]
    return producer_id, (n_declared, n_samples, n_label_bytes, size, created_ms, double), payload, attached


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
