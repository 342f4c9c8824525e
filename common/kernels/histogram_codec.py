"""Histogram messages of remote write, 1.0 and 2.0, to the bytes of `docs/format/histogram.md`.

The message, from Prometheus' `prompb/types.proto`:

    Histogram {
      uint64 count_int = 1 | double count_float = 2;  double sum = 3;  sint32 schema = 4;
      double zero_threshold = 5;  uint64 zero_count_int = 6 | double zero_count_float = 7;
      BucketSpan negative_spans = 8;  sint64 negative_deltas = 9;   double negative_counts = 10;   (all repeated)
      BucketSpan positive_spans = 11; sint64 positive_deltas = 12;  double positive_counts = 13;
      enum reset_hint = 14;  int64 timestamp = 15;  double custom_values = 16; }
    BucketSpan { sint32 offset = 1; uint32 length = 2; }

A message is walked once for its single fields, and once for each of its lists when it is checked and when it is
written. The bytes come from outside: every length is checked against the message it lies in.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, kernel
from common.kernels.protobuf import get_varint, skip
from common.kernels.record import put_uvarint, zigzag

OK = 0
MALFORMED = 1
STALE = 2
UNKNOWN_SCHEMA = 10
NEGATIVE_GAP = 11
BUCKETS_MISMATCH = 12
NEGATIVE_COUNT = 13
COUNT_MISMATCH = 14
BAD_BOUNDS = 15
NOT_OF_CUSTOM_BOUNDS = 16
BAD_THRESHOLD = 17

EXTRA_BYTES = 64
"""The bytes of a histogram are at most that many more than its message."""

_STALE_BITS = np.uint64(0x7FF0000000000002)
_CUSTOM = -53
_INDEX_LIMIT = 1 << 31

# Single fields: in `single` as bits.
_COUNT, _SUM, _THRESHOLD, _ZERO, _N_SINGLE = range(5)
# Whole numbers.
_IS_FLOAT, _ZERO_IS_FLOAT, _SCHEMA, _HINT, _TIMESTAMP, _LISTS = range(6)
# Of a list: number of elements, what spans promise, the lowest gap, where its last bucket is, negative elements.
_N, _LENGTH, _GAP, _LAST, _NEGATIVE, _PER_LIST = range(6)
_N_WHOLE = _LISTS + 17 * _PER_LIST


@device
def _word(data, at):
    value = np.uint64(0)
    for i in range(8):
        value |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return value


@device
def _put_word(out, at, value):
    for i in range(8):
        out[at + i] = np.uint8((value >> np.uint64(8 * i)) & np.uint64(255))
    return at + 8


@device
def _unzigzag(value):
    bits = np.uint64(value)
    return np.int64(bits >> np.uint64(1)) ^ -np.int64(bits & np.uint64(1))


@device
def _field(data, at, end):
    """Read a tag, and where the field's content lies. Returns tag, start and end, which is -1 if it is bad."""
    tag, at = get_varint(data, at, end)
    if at < 0:
        return tag, at, np.int64(-1)
    if tag & 7 == 2 and tag >> 3 >= 1:
        size, at = get_varint(data, at, end)
        if at < 0 or size < 0 or size > end - at:
            return tag, at, np.int64(-1)
        return tag, at, at + size
    return tag, at, skip(data, at, end, tag)


@device
def _scan(data, start, end, single, whole):
    """Read the single fields and see that all fields have their types. Returns whether they have."""
    at = start
    while at < end:
        tag, at, after = _field(data, at, end)
        if after < 0:
            return False
        number = tag >> 3
        wire_type = tag & 7
        if number == 2 or number == 3 or number == 5 or number == 7:
            if wire_type != 1:
                return False
            place = _SUM
            if number == 2:
                place = _COUNT
                whole[_IS_FLOAT] = 1
            elif number == 5:
                place = _THRESHOLD
            elif number == 7:
                place = _ZERO
                whole[_ZERO_IS_FLOAT] = 1
            single[place] = _word(data, at)
        elif number == 1 or number == 4 or number == 6 or number == 14 or number == 15:
            if wire_type != 0:
                return False
            value, _ = get_varint(data, at, end)
            if number == 1:
                single[_COUNT] = np.uint64(value)
                whole[_IS_FLOAT] = 0
            elif number == 6:
                single[_ZERO] = np.uint64(value)
                whole[_ZERO_IS_FLOAT] = 0
            elif number == 4:
                whole[_SCHEMA] = _unzigzag(value & 0xFFFFFFFF)
            elif number == 14:
                whole[_HINT] = value
            else:
                whole[_TIMESTAMP] = value
        elif number == 8 or number == 11:
            if wire_type != 2:
                return False
        elif number == 9 or number == 12:
            if wire_type != 2 and wire_type != 0:
                return False
        elif (number == 10 or number == 13 or number == 16) and wire_type != 2 and wire_type != 1:
            return False
        at = after
    return True


@device
def _span(data, at, end):
    """Read a BucketSpan that is [at, end). Returns offset, length and whether it could be read."""
    offset = np.int64(0)
    length = np.int64(0)
    while at < end:
        tag, at, after = _field(data, at, end)
        if after < 0:
            return offset, length, False
        if tag >> 3 == 1 or tag >> 3 == 2:
            if tag & 7 != 0:
                return offset, length, False
            value, _ = get_varint(data, at, end)
            if tag >> 3 == 1:
                offset = _unzigzag(value & 0xFFFFFFFF)
            else:
                length = value & 0xFFFFFFFF
        at = after
    return offset, length, True


@device
def _spans(data, start, end, number, whole, out, written):
    """Go through a list of spans, and write it unless `written` < 0. Returns the position behind, -2 if bad."""
    base = _LISTS + number * _PER_LIST
    whole[base : base + _PER_LIST] = 0
    index = np.int64(0)
    at = start
    while at < end:
        tag, at, after = _field(data, at, end)
        if tag == (number << 3 | 2):
            offset, length, readable = _span(data, at, after)
            if not readable:
                return np.int64(-2)
            if whole[base + _N] > 0:
                whole[base + _GAP] = min(whole[base + _GAP], offset)
            whole[base + _N] += 1
            whole[base + _LENGTH] += length
            index += offset + length
            if index < length:
                whole[base + _NEGATIVE] = 1
            whole[base + _LAST] = max(whole[base + _LAST], abs(index), abs(index - length))
            if written >= 0:
                written = put_uvarint(out, written, zigzag(offset))
                written = put_uvarint(out, written, np.uint64(length))
        at = after
    return np.int64(written)


@device
def _deltas(data, start, end, number, whole, single, out, written):
    """Go through a list of differences; single[_N_SINGLE] is the sum of the counts. Returns as `_spans`."""
    base = _LISTS + number * _PER_LIST
    whole[base : base + _PER_LIST] = 0
    single[_N_SINGLE] = np.uint64(0)
    count = np.int64(0)
    at = start
    while at < end:
        tag, at, after = _field(data, at, end)
        if tag >> 3 == number:
            while at < after:
                value, at = get_varint(data, at, after)
                if at < 0:
                    return np.int64(-2)
                count += _unzigzag(value)
                whole[base + _N] += 1
                if count < 0:
                    whole[base + _NEGATIVE] = 1
                single[_N_SINGLE] += np.uint64(count)
                if written >= 0:
                    written = put_uvarint(out, written, np.uint64(value))
        at = after
    return np.int64(written)


@device
def _doubles(data, start, end, number, whole, single, numbers, out, written):
    """Go through a list of doubles; notes if one is negative, or not above the one before. Returns as `_spans`."""
    base = _LISTS + number * _PER_LIST
    whole[base : base + _PER_LIST] = 0
    last = -np.inf
    at = start
    while at < end:
        tag, at, after = _field(data, at, end)
        if tag >> 3 == number:
            if (after - at) % 8:
                return np.int64(-2)
            while at < after:
                bits = _word(data, at)
                at += 8
                single[_N_SINGLE] = bits
                value = numbers[_N_SINGLE]
                if value < 0:
                    whole[base + _NEGATIVE] = 1
                if np.isnan(value) or value == np.inf or value <= last:
                    whole[base + _GAP] = -1
                last = value
                whole[base + _N] += 1
                if written >= 0:
                    written = _put_word(out, written, bits)
        at = after
    return np.int64(written)


@device
def _buckets(data, start, end, number, whole, single, numbers, out, written):
    """Go through the counts of the buckets whose spans have this field number."""
    if whole[_IS_FLOAT]:
        return _doubles(data, start, end, number + 2, whole, single, numbers, out, written)
    return _deltas(data, start, end, number + 1, whole, single, out, written)


@device
def _check_side(data, start, end, number, whole, single, numbers, out):
    """Spans and counts of one side: a status. single[_N_SINGLE] is the sum of integer counts."""
    if _spans(data, start, end, number, whole, out, np.int64(-1)) == -2:
        return MALFORMED
    spans = _LISTS + number * _PER_LIST
    if whole[spans + _GAP] < 0 or whole[spans + _LAST] >= _INDEX_LIMIT:
        return NEGATIVE_GAP
    if _buckets(data, start, end, number, whole, single, numbers, out, np.int64(-1)) == -2:
        return MALFORMED
    counts = _LISTS + (number + 2 if whole[_IS_FLOAT] else number + 1) * _PER_LIST
    if whole[counts + _N] != whole[spans + _LENGTH]:
        return BUCKETS_MISMATCH
    return NEGATIVE_COUNT if whole[counts + _NEGATIVE] else OK


@device
def _check(data, start, end, whole, single, numbers, out):
    """Whether a message, whose single fields have been read, is a histogram that Prometheus would take."""
    schema = whole[_SCHEMA]
    if schema != _CUSTOM and (schema < -4 or schema > 8):
        return UNKNOWN_SCHEMA
    if not numbers[_THRESHOLD] >= 0.0:
        return BAD_THRESHOLD
    if whole[_ZERO_IS_FLOAT] != whole[_IS_FLOAT]:
        single[_ZERO] = np.uint64(0)
    status = _check_side(data, start, end, np.int64(8), whole, single, numbers, out)
    if status != OK:
        return status
    total = single[_N_SINGLE]
    status = _check_side(data, start, end, np.int64(11), whole, single, numbers, out)
    if status != OK:
        return status
    total += single[_N_SINGLE] + single[_ZERO]
    if _doubles(data, start, end, np.int64(16), whole, single, numbers, out, np.int64(-1)) == -2:
        return MALFORMED
    bounds = _LISTS + 16 * _PER_LIST
    if schema == _CUSTOM:
        if whole[_LISTS + 8 * _PER_LIST + _N] or single[_ZERO] or numbers[_THRESHOLD] != 0:
            return NOT_OF_CUSTOM_BOUNDS
        if whole[_LISTS + 11 * _PER_LIST + _NEGATIVE]:
            return BAD_BOUNDS
        if whole[bounds + _GAP] < 0 or whole[_LISTS + 11 * _PER_LIST + _LAST] > whole[bounds + _N] + 1:
            return BAD_BOUNDS
    elif whole[bounds + _N]:
        return BAD_BOUNDS
    if whole[_IS_FLOAT]:
        return NEGATIVE_COUNT if numbers[_COUNT] < 0 or numbers[_ZERO] < 0 else OK
    if total > single[_COUNT] or (total != single[_COUNT] and not np.isnan(numbers[_SUM])):
        return COUNT_MISMATCH
    return OK


@device
def _put_number(out, at, bits, is_float):
    return _put_word(out, at, bits) if is_float else put_uvarint(out, at, bits)


@device
def _write(data, start, end, whole, single, numbers, out, at):
    """Write a checked histogram. Returns the position behind."""
    is_float = whole[_IS_FLOAT]
    out[at] = np.uint8((whole[_HINT] & 3) | (4 if is_float else 0))
    out[at + 1] = np.uint8(whole[_SCHEMA] & 255)
    at = _put_word(out, at + 2, single[_SUM])
    at = _put_number(out, at, single[_COUNT], is_float)
    custom = whole[_SCHEMA] == _CUSTOM
    if not custom:
        at = _put_word(out, at, single[_THRESHOLD])
        at = _put_number(out, at, single[_ZERO], is_float)
    at = put_uvarint(out, at, np.uint64(whole[_LISTS + 11 * _PER_LIST + _N]))
    at = _spans(data, start, end, np.int64(11), whole, out, at)
    at = _buckets(data, start, end, np.int64(11), whole, single, numbers, out, at)
    if custom:
        at = put_uvarint(out, at, np.uint64(whole[_LISTS + 16 * _PER_LIST + _N]))
        return _doubles(data, start, end, np.int64(16), whole, single, numbers, out, at)
    at = put_uvarint(out, at, np.uint64(whole[_LISTS + 8 * _PER_LIST + _N]))
    at = _spans(data, start, end, np.int64(8), whole, out, at)
    return _buckets(data, start, end, np.int64(8), whole, single, numbers, out, at)


@kernel("void(uint8[::1], int64[:, ::1], uint8[::1], int64[::1], int64[::1], int64[::1])")
def encode_histograms(data, ranges, out, offsets, timestamps, statuses):
    """Write Histogram messages as Tabor stores them.

    ranges: int64 (n, 2), start and end of each message in `data`.
    out: uint8, room for all messages and EXTRA_BYTES each. offsets: int64 (n + 1,), written: where each lies.
    timestamps: int64 (n,), written, ms.
    statuses: int64 (n,), written: OK, STALE for one that only marks the end of its series, MALFORMED, or why it is
        no histogram; unless OK, it has no bytes.
    """
    single = np.zeros(_N_SINGLE + 1, dtype=np.uint64)
    numbers = single.view(np.float64)
    whole = np.zeros(_N_WHOLE, dtype=np.int64)
    offsets[0] = 0
    written = np.int64(0)
    for i in range(len(ranges)):
        start = ranges[i, 0]
        end = ranges[i, 1]
        single[:] = 0
        whole[:] = 0
        status = OK if _scan(data, start, end, single, whole) else MALFORMED
        if status == OK and single[_SUM] == _STALE_BITS:
            status = STALE
        if status == OK:
            status = _check(data, start, end, whole, single, numbers, out)
        if status == OK:
            written = _write(data, start, end, whole, single, numbers, out, written)
        timestamps[i] = whole[_TIMESTAMP]
        statuses[i] = status
        offsets[i + 1] = written
