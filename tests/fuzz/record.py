"""A record of the log is corrupt, or read as its format page says, and the same when it is written again."""

from __future__ import annotations

import struct

import numpy as np

from common.attachments import NO_ATTACHMENTS
from common.errors import CorruptError
from common.record import HEADER_BYTES, RecordBatch, decode_record, encode_record
from tests.oracles.record import read_payload
from tests.unit.common.test_record import assert_same, sealed

_COUNTS = struct.Struct("<IIIIII")
_COUNTS_AT = 32
_FLAGS_AT = 6
_ZSTD, _DOUBLE_DELTA, _ATTACHED = 1, 2, 4


def one_input(data: bytes) -> object:
    """data: a record. Its checksum and the size of its payload are made right, or little would get past them."""
    outcome(data)
    return outcome(repaired(data)) if len(data) >= HEADER_BYTES else None


def repaired(data: bytes) -> bytes:
    declared, samples, labels, size, _, attached = _COUNTS.unpack_from(data, _COUNTS_AT)
    packed = len(data) - HEADER_BYTES
    if not data[_FLAGS_AT] & _ZSTD:
        size = packed
    counts = _COUNTS.pack(declared, samples, labels, size, packed, attached)
    return sealed(b"TABR\x01\x01" + data[6:8], data[16:_COUNTS_AT] + counts + data[HEADER_BYTES:])


def outcome(data: bytes) -> object:
    try:
        batch = decode_record(data)
    except CorruptError as error:
        return str(error)
    assert_same(decode_record(encode_record(batch)), batch)
    if not data[_FLAGS_AT] & _ZSTD:
        compare(batch, data)
    columns = (getattr(batch, name) for name in RecordBatch.__slots__ if name != "attached")
    attached = batch.attached.encode(0)
    return [column.tobytes() if isinstance(column, np.ndarray) else column for column in columns], attached


def compare(batch: RecordBatch, data: bytes) -> None:
    """The batch of a record that is not compressed is what the slow reader reads."""
    n_declared, n_samples, n_labels, _, _, n_attached = _COUNTS.unpack_from(data, _COUNTS_AT)
    flags = data[_FLAGS_AT]
    n_attached = n_attached if flags & _ATTACHED else 0
    double_delta, payload = bool(flags & _DOUBLE_DELTA), data[HEADER_BYTES:]
    want = read_payload(payload, n_declared, n_samples, n_labels, batch.created_ms, double_delta, n_attached)
    labels = batch.label_bytes.tobytes()
    offsets = batch.label_offsets.tolist()
    assert want.declarations == [
        (ref, identity.tobytes(), labels[offsets[i] : offsets[i + 1]])
        for i, (ref, identity) in enumerate(zip(batch.declared_refs.tolist(), batch.declared_ids, strict=True))
    ]
    assert want.refs == batch.refs.tolist()
    assert want.timestamps == batch.timestamps.tolist()
    assert want.value_bits == batch.values.view(np.uint64).tolist()
    if flags & _ATTACHED:
        assert batch.attached.encode(batch.created_ms) == data[len(data) - n_attached :]
    else:
        assert batch.attached is NO_ATTACHMENTS
