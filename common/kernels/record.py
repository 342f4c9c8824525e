"""Columns of a record to bytes and back (`docs/format/log-record.md`, 'Payload')."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, inlined, kernel
from common.kernels.text import compare, is_utf8

ID_BYTES = 16

OK = 0
BAD_VARINT = 1
REF_OUT_OF_RANGE = 2
BAD_LABEL_LENGTHS = 3
TRUNCATED = 4
TRAILING_BYTES = 5
BAD_LABEL_SET = 6
BAD_UTF8 = 7
BAD_MASK = 8

_7F = np.uint64(0x7F)
_80 = np.uint64(0x80)
_FF = np.uint64(0xFF)
_0 = np.uint64(0)
_1 = np.uint64(1)
_7 = np.uint64(7)
_63 = np.uint64(63)
_MAX_REF = np.int64(0xFFFFFFFF)
# Every integer of smaller magnitude is a float64 of its own.
_INTEGER_LIMIT = 2.0**53
# Values that are taken apart into planes at a time, so that they stay in the first-level cache.
_BLOCK = 512


@inlined
def zigzag(delta):
    """Signed to unsigned with small results for small magnitudes: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return np.uint64((delta << np.int64(1)) ^ (delta >> np.int64(63)))


@inlined
def _unzigzag(value):
    return np.int64(value >> _1) ^ -np.int64(value & _1)


@inlined
def put_uvarint(out, at, value):
    """Write a uvarint; the caller has made room. Returns the position behind it."""
    while value >= _80:
        out[at] = np.uint8((value & _7F) | _80)
        value >>= _7
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@inlined
def _get(data, at, end):
    """Read a uvarint before `end`. Returns it and the position behind it, which is -1 if there is none."""
    value = _0
    shift = _0
    while at < end:
        byte = np.uint64(data[at])
        at += 1
        # The tenth byte has room for the 64th bit only.
        if shift == _63 and byte > _1:
            return value, -1
        value |= (byte & _7F) << shift
        if byte < _80:
            return value, at
        shift += _7
    return value, -1


@inlined
def _get_column(data, at, end, column):
    """Read a uvarint for each element of `column`. Returns the position behind them, -1 if they are not there."""
    # Unsigned positions, because signed ones are tested for counting from the end at every access.
    position = np.uint64(at)
    limit = np.uint64(end)
    for i in range(column.size):
        if position >= limit:
            return -1
        byte = np.uint64(data[position])
        position += _1
        value = byte & _7F
        shift = _7
        while byte >= _80:
            if position >= limit:
                return -1
            byte = np.uint64(data[position])
            position += _1
            # The tenth byte has room for the 64th bit only.
            if shift == _63 and byte > _1:
                return -1
            value |= (byte & _7F) << shift
            shift += _7
        column[i] = value
    return np.int64(position)


@inlined
def _get_refs(data, at, end, scratch, refs):
    """Read a column of refs. Returns the position behind it, or minus what is wrong."""
    at = _get_column(data, at, end, scratch)
    if at < 0:
        return -BAD_VARINT
    previous = np.int64(0)
    for i in range(refs.size):
        previous += _unzigzag(scratch[i])
        if previous < 0 or previous > _MAX_REF:
            return -REF_OUT_OF_RANGE
        refs[i] = np.uint32(previous)
    return at


@device
def _prefers_double_delta(timestamps, base):
    """Whether second differences are zero more often than first ones: samples at a steady step."""
    single = 0
    double = 0
    previous = base
    previous_delta = np.int64(0)
    for i in range(timestamps.size):
        delta = timestamps[i] - previous
        single += delta != 0
        double += delta != previous_delta
        previous = timestamps[i]
        previous_delta = delta
    return double < single


@inlined
def _put_values(out, at, values, bits):
    """Write the value section: a mask of the integers, the integers as varints, the rest in eight planes."""
    n = values.size
    mask_at = at
    at += (n + 7) // 8
    out[mask_at:at] = 0
    rest = np.empty(n, dtype=np.uint64)
    n_rest = 0
    for i in range(n):
        value = values[i]
        # False for NaN. Minus zero is an integer only in value, so the bits decide.
        if -_INTEGER_LIMIT < value < _INTEGER_LIMIT:
            integer = np.int64(value)
            if np.float64(integer) == value and (integer != 0 or bits[i] == _0):
                out[mask_at + (i >> 3)] |= np.uint8(1 << (i & 7))
                at = put_uvarint(out, at, zigzag(integer))
                continue
        rest[n_rest] = bits[i]
        n_rest += 1
    for low in range(0, n_rest, _BLOCK):
        block = rest[low : min(low + _BLOCK, n_rest)]
        for plane in range(8):
            shift = np.uint64(8 * plane)
            # A slice is indexed from 0, which lets the compiler use vector instructions.
            column = out[at + plane * n_rest + low : at + plane * n_rest + low + block.size]
            for i in range(block.size):
                column[i] = np.uint8((block[i] >> shift) & _FF)
    return at + 8 * n_rest


@inlined
def _get_values(data, at, end, scratch, values, bits):
    """Read the value section, the last of the payload. Returns OK or what is wrong."""
    n = values.size
    mask_at = at
    at += (n + 7) // 8
    if at > end:
        return TRUNCATED
    if n & 7 and data[at - 1] >> (n & 7):
        return BAD_MASK
    mask = data[mask_at:at]
    n_integers = 0
    for i in range(mask.size):
        for bit in range(8):
            n_integers += np.int64((mask[i] >> bit) & 1)
    at = _get_column(data, at, end, scratch[:n_integers])
    if at < 0:
        return BAD_VARINT
    n_rest = n - n_integers
    if 8 * n_rest > end - at:
        return TRUNCATED
    if 8 * n_rest < end - at:
        return TRAILING_BYTES
    rest = np.zeros(n_rest, dtype=np.uint64)
    for low in range(0, n_rest, _BLOCK):
        block = rest[low : min(low + _BLOCK, n_rest)]
        for plane in range(8):
            shift = np.uint64(8 * plane)
            column = data[at + plane * n_rest + low : at + plane * n_rest + low + block.size]
            for i in range(block.size):
                block[i] |= np.uint64(column[i]) << shift
    integers = 0
    for i in range(n):
        if (mask[i >> 3] >> (i & 7)) & 1:
            values[i] = np.float64(_unzigzag(scratch[integers]))
            integers += 1
        else:
            bits[i] = rest[i - integers]
    return OK


@device
def _put_payload(
    declared_refs, declared_ids, label_offsets, label_bytes, refs, timestamps, values, bits, base, out, at
):
    """Write the columns of one record at `at`. Returns the position behind, negative for second differences."""
    previous = np.int64(0)
    for i in range(declared_refs.size):
        ref = np.int64(declared_refs[i])
        at = put_uvarint(out, at, zigzag(ref - previous))
        previous = ref
    for i in range(declared_refs.size):
        at = put_uvarint(out, at, np.uint64(label_offsets[i + 1] - label_offsets[i]))
    for i in range(declared_refs.size):
        for j in range(ID_BYTES):
            out[at + j] = declared_ids[i, j]
        at += ID_BYTES
    for i in range(label_offsets[0], label_offsets[declared_refs.size]):
        out[at] = label_bytes[i]
        at += 1

    previous = np.int64(0)
    for i in range(refs.size):
        ref = np.int64(refs[i])
        at = put_uvarint(out, at, zigzag(ref - previous))
        previous = ref

    double = _prefers_double_delta(timestamps, base)
    previous = base
    previous_delta = np.int64(0)
    for i in range(timestamps.size):
        delta = timestamps[i] - previous
        at = put_uvarint(out, at, zigzag(delta - previous_delta))
        previous = timestamps[i]
        if double:
            previous_delta = delta

    at = _put_values(out, at, values, bits)
    return -at if double else at


@kernel(
    "void(Array(int64, 2, 'C', readonly=True), Array(uint32, 1, 'C', readonly=True),"
    " Array(uint8, 2, 'C', readonly=True), Array(int64, 1, 'C', readonly=True),"
    " Array(uint8, 1, 'C', readonly=True), Array(uint32, 1, 'C', readonly=True),"
    " Array(int64, 1, 'C', readonly=True), Array(float64, 1, 'C', readonly=True),"
    " Array(uint64, 1, 'C', readonly=True), int64, uint8[::1], int64[::1])"
)
def encode_payloads(
    cuts, declared_refs, declared_ids, label_offsets, label_bytes, refs, timestamps, values, bits, base, out, ends
):
    """Write the columns of records, one after another, to `out`, which has room for the worst case.

    cuts: int64 (n_records, 4), of each record the declarations [0], [1] and the samples [2], [3] that it holds,
        half-open. bits: the same memory as `values`.
    ends: int64 (n_records,), written with each payload's end, negative if its timestamps are second differences.
    """
    at = 0
    for r in range(cuts.shape[0]):
        first = cuts[r, 0]
        last = cuts[r, 1]
        start = cuts[r, 2]
        end = cuts[r, 3]
        ends[r] = _put_payload(
            declared_refs[first:last],
            declared_ids[first:last],
            label_offsets[first : last + 1],
            label_bytes,
            refs[start:end],
            timestamps[start:end],
            values[start:end],
            bits[start:end],
            base,
            out,
            at,
        )
        at = abs(ends[r])


@device
def _get_payload(
    data,
    at,
    end,
    base,
    double,
    declared_refs,
    declared_ids,
    label_offsets,
    labels_end,
    label_bytes,
    scratch,
    refs,
    timestamps,
    values,
    bits,
):
    """Fill the columns of one record from the payload data[at:end). Returns OK or what is wrong.

    label_offsets[0] is set, to where its labels begin in `label_bytes`; they end at `labels_end`.
    """
    n_declared = declared_refs.size
    at = _get_refs(data, at, end, scratch[:n_declared], declared_refs)
    if at < 0:
        return -at
    for i in range(n_declared):
        value, at = _get(data, at, end)
        if at < 0:
            return BAD_VARINT
        if value > np.uint64(labels_end - label_offsets[i]):
            return BAD_LABEL_LENGTHS
        label_offsets[i + 1] = label_offsets[i] + np.int64(value)
    if label_offsets[n_declared] != labels_end:
        return BAD_LABEL_LENGTHS
    if n_declared * ID_BYTES + labels_end - label_offsets[0] > end - at:
        return TRUNCATED
    for i in range(n_declared):
        for j in range(ID_BYTES):
            declared_ids[i, j] = data[at + j]
        at += ID_BYTES
    for i in range(label_offsets[0], labels_end):
        label_bytes[i] = data[at]
        at += 1

    scratch = scratch[: refs.size]
    at = _get_refs(data, at, end, scratch, refs)
    if at < 0:
        return -at
    at = _get_column(data, at, end, scratch)
    if at < 0:
        return BAD_VARINT
    previous = base
    delta = np.int64(0)
    for i in range(timestamps.size):
        if double:
            delta += _unzigzag(scratch[i])
        else:
            delta = _unzigzag(scratch[i])
        previous += delta
        timestamps[i] = previous
    return _get_values(data, at, end, scratch, values, bits)


@inlined
def _check_label_sets(label_offsets, label_bytes):
    """Whether every label set is canonical: whole texts, names ascending, no empty text, UTF-8.

    Returns OK or what is wrong. The offsets are known to ascend within the bytes.
    """
    for i in range(label_offsets.size - 1):
        at = label_offsets[i]
        end = label_offsets[i + 1]
        name = np.int64(-1)
        name_end = np.int64(-1)
        while at < end:
            before = name
            before_end = name_end
            for part in range(2):
                length, at = _get(label_bytes, at, end)
                if at < 0 or length == _0 or length > np.uint64(end - at):
                    return BAD_LABEL_SET
                if not is_utf8(label_bytes, at, at + np.int64(length)):
                    return BAD_UTF8
                if part == 0:
                    name = at
                    name_end = at + np.int64(length)
                at += np.int64(length)
            if before >= 0 and compare(label_bytes, before, before_end, name, name_end) >= 0:
                return BAD_LABEL_SET
    return OK


@kernel(
    "void(Array(uint8, 1, 'C', readonly=True), Array(int64, 2, 'C', readonly=True), int64[:, ::1], uint32[::1],"
    " uint8[:, ::1], int64[::1], uint8[::1], uint32[::1], int64[::1], float64[::1], uint64[::1], int64[::1])"
)
def decode_payloads(
    data,
    records,
    offsets,
    declared_refs,
    declared_ids,
    label_offsets,
    label_bytes,
    refs,
    timestamps,
    values,
    bits,
    statuses,
):
    """Fill the columns of records from payloads that lie one after another in `data`.

    records: int64 (n_records, 3): end of the payload, created_ms, 1 if timestamps are second differences.
    offsets: int64 (n_records + 1, 3): where the declarations, samples and label bytes of each record begin in the
        columns. label_offsets: (number of declarations + 1,).
    bits: the same memory as `values`. statuses: int64 (n_records,), written: OK or what is wrong with the record;
        what is in its part of the columns then means nothing.
    """
    longest = 0
    for r in range(records.shape[0]):
        longest = max(longest, offsets[r + 1, 0] - offsets[r, 0], offsets[r + 1, 1] - offsets[r, 1])
    scratch = np.empty(longest, dtype=np.uint64)
    at = np.int64(0)
    label_offsets[0] = 0
    for r in range(records.shape[0]):
        first = offsets[r, 0]
        last = offsets[r + 1, 0]
        start = offsets[r, 1]
        end = offsets[r + 1, 1]
        label_offsets[first] = offsets[r, 2]
        status = _get_payload(
            data,
            at,
            records[r, 0],
            records[r, 1],
            records[r, 2] != 0,
            declared_refs[first:last],
            declared_ids[first:last],
            label_offsets[first : last + 1],
            offsets[r + 1, 2],
            label_bytes,
            scratch,
            refs[start:end],
            timestamps[start:end],
            values[start:end],
            bits[start:end],
        )
        if status == OK and first < last:
            status = _check_label_sets(label_offsets[first : last + 1], label_bytes)
        statuses[r] = status
        label_offsets[last] = offsets[r + 1, 2]
        at = records[r, 0]
