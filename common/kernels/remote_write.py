"""Remote write 1.0 (`prometheus.WriteRequest`) to columns.

The messages, from Prometheus' `prompb/remote.proto` and `types.proto` (fields that matter here):

    WriteRequest { repeated TimeSeries timeseries = 1; repeated MetricMetadata metadata = 3; }
    TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2; repeated Exemplar exemplars = 3;
                   repeated Histogram histograms = 4; }
    Label        { string name = 1; string value = 2; }
    Sample       { double value = 1; int64 timestamp = 2; }

Exemplars, histograms and metadata are only found here; others read them. The bytes come from outside: every length
is checked against the message it lies in.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import inlined, kernel
from common.kernels.protobuf import get_varint, skip
from common.kernels.series_table import MAX_HASHED_BYTES, find, hash_bytes, word_at
from common.kernels.text import compare, is_utf8

OK = 0
# Of the whole request.
MALFORMED = 1
TOO_MANY_SERIES = 2
NEEDS_SCRATCH = 3
# Of one label set; MALFORMED too.
NO_METRIC_NAME = 10
EMPTY_NAME = 11
DUPLICATE_NAME = 12
UNSORTED = 13
NAME_NOT_UTF8 = 14
VALUE_NOT_UTF8 = 15
TOO_MANY_LABELS = 16
NAME_TOO_LONG = 17
VALUE_TOO_LONG = 18
LABELS_TOO_LONG = 19

# Places in the counts that `walk` writes.
N_SERIES = 0
N_SAMPLES = 1
N_UNKNOWN = 2
N_OTHERS = 3
ERROR_AT = 4
N_COUNTS = 5

# What `walk` finds besides samples: the number of its field.
EXEMPLAR = 3
HISTOGRAM = 4
METADATA = 30

_METRIC_NAME = np.frombuffer(b"__name__", dtype=np.uint8)


@inlined
def _sample(data, words, at, end):
    """Read a Sample that is [at, end). Returns timestamp, bits of the value, and whether it could be read."""
    timestamp = np.int64(0)
    value = np.uint64(0)
    while at < end:
        tag, at = get_varint(data, at, end)
        if at < 0:
            return timestamp, value, False
        if tag == 0x09:
            if end - at < 8:
                return timestamp, value, False
            value = word_at(words, at)
            at += 8
        elif tag == 0x10:
            timestamp, at = get_varint(data, at, end)
        elif tag >> 3 == 1 or tag >> 3 == 2:
            return timestamp, value, False
        else:
            at = skip(data, at, end, tag)
        if at < 0:
            return timestamp, value, False
    return timestamp, value, True


@inlined
def _series(data, words, at, end, n, n_others, scratch, timestamps, values, others):
    """Read a TimeSeries that is [at, end), its samples to places from `n` on as far as there are places.

    Where its exemplars and histograms lie goes to `others` from `n_others` on, as far as there are places.

    Its label fields lie at [labels_at, labels_end): in the message, or gathered from `scratch` on if they are not
    contiguous there. Returns status, n, labels_at, labels_end, scratch, n_others.
    """
    labels_at = at
    labels_end = at
    gathered = False
    while at < end:
        field_at = at
        tag, at = get_varint(data, at, end)
        if at < 0:
            return MALFORMED, n, labels_at, labels_end, scratch, n_others
        if (tag >> 3) < 1 or (tag >> 3) > 4:
            at = skip(data, at, end, tag)
            if at < 0:
                return MALFORMED, n, labels_at, labels_end, scratch, n_others
            continue
        size, at = get_varint(data, at, end)
        if tag & 7 != 2 or at < 0 or size < 0 or size > end - at:
            return MALFORMED, n, labels_at, labels_end, scratch, n_others
        at += size
        if tag == 0x12:
            timestamp, value, readable = _sample(data, words, at - size, at)
            if not readable:
                return MALFORMED, n, labels_at, labels_end, scratch, n_others
            if n < len(timestamps):
                timestamps[n] = timestamp
                values[n] = value
            n += 1
        elif tag == 0x0A:
            if not gathered and labels_end == labels_at:
                labels_at = field_at
                labels_end = at
            elif not gathered and labels_end == field_at:
                labels_end = at
            else:
                n_bytes = at - field_at + (0 if gathered else labels_end - labels_at)
                # The two words behind are what an unaligned read may touch.
                if n_bytes > len(data) - 16 - scratch:
                    return NEEDS_SCRATCH, n, labels_at, labels_end, scratch, n_others
                if not gathered:
                    gathered = True
                    moved_to = scratch
                    for i in range(labels_at, labels_end):
                        data[scratch] = data[i]
                        scratch += 1
                    labels_at = moved_to
                for i in range(field_at, at):
                    data[scratch] = data[i]
                    scratch += 1
                labels_end = scratch
        else:
            if n_others < len(others):
                others[n_others, 0] = tag >> 3
                others[n_others, 2] = at - size
                others[n_others, 3] = at
            n_others += 1
    return OK, n, labels_at, labels_end, scratch, n_others


@inlined
def _recognise(words, hash_key, tenant, index, keys, labels_at, labels_end, guess):
    """Slot of the series with these label fields, -1 if it is not in the table, and their hash.

    guess: the slot to try first. Label sets that are too long to be hashed are never in the table.
    """
    if labels_end - labels_at > MAX_HASHED_BYTES:
        return np.int64(-1), np.uint64(0), np.uint64(0)
    first, second = hash_bytes(words, hash_key, labels_at, labels_end - labels_at, tenant)
    # Senders keep an order, so the series that was added next is likely the one that comes next.
    if guess < len(keys) and keys[guess, 0] == first and keys[guess, 1] == second:
        return np.int64(guess), first, second
    slot, _ = find(index, keys, first, second)
    return slot, first, second


@kernel(
    "int64(uint8[::1], uint64[::1], int64, int64, uint64[:, ::1], int64, int32[::1], uint64[:, ::1],"
    " int32[::1], int64[::1], uint64[::1], int64[:, ::1], uint64[:, ::1], int64[:, ::1], int64[::1])"
)
def walk(
    data,
    words,
    size,
    max_series,
    hash_key,
    tenant,
    index,
    keys,
    slots,
    timestamps,
    values,
    unknown,
    unknown_keys,
    others,
    counts,
):
    """Turn a WriteRequest into columns of samples with the slots of their series.

    data: the request in its first `size` bytes. At least 16 bytes follow; the space behind serves to gather labels
        that are not contiguous, for which 2 * size + 32 bytes in all are always enough.
    words: `data` as uint64. hash_key, index, keys: see `series_table`. tenant: number of the one who writes.
    slots, timestamps, values: (room,), written; a sample of an unknown series gets slot -1 - (row in `unknown`).
    unknown: int64 (rows, 3), written: for a series that is not in the table, where its label fields start and end
        in `data`, and its number of samples, exemplars and histograms. unknown_keys: uint64 (rows, 2), written
        with their hashes.
    others: int64 (rows, 6), written: EXEMPLAR, HISTOGRAM or METADATA, the slot as that of a sample, where the
        message starts and ends in `data`, and where the label fields of its series do.
    counts: int64 (N_COUNTS,), written. N_SAMPLES, N_UNKNOWN and N_OTHERS are counted to the end even if there is
        no room to write them: the caller then provides more and walks again.

    Returns OK, MALFORMED, TOO_MANY_SERIES or NEEDS_SCRATCH; ERROR_AT is where the field at fault begins.
    """
    counts[:] = 0
    at = np.int64(0)
    n = np.int64(0)
    n_unknown = 0
    n_others = np.int64(0)
    scratch = np.int64(size)
    slot = np.int64(-1)
    while at < size:
        counts[ERROR_AT] = at
        tag, at = get_varint(data, at, size)
        if at < 0:
            return MALFORMED
        if tag >> 3 != 1 and tag >> 3 != 3:
            at = skip(data, at, size, tag)
            if at < 0:
                return MALFORMED
            continue
        length, at = get_varint(data, at, size)
        if tag & 7 != 2 or at < 0 or length < 0 or length > size - at:
            return MALFORMED
        if tag == 0x1A:
            if n_others < len(others):
                others[n_others, 0] = METADATA
                others[n_others, 1] = 0
                others[n_others, 2] = at
                others[n_others, 3] = at + length
            n_others += 1
            at += length
            continue
        if counts[N_SERIES] >= max_series:
            return TOO_MANY_SERIES
        counts[N_SERIES] += 1
        first_other = n_others
        status, end_n, labels_at, labels_end, scratch, n_others = _series(
            data, words, at, at + length, n, n_others, scratch, timestamps, values, others
        )
        if status != OK:
            return status
        at += length
        slot, first, second = _recognise(words, hash_key, tenant, index, keys, labels_at, labels_end, slot + 1)
        mark = slot
        if slot < 0:
            mark = -1 - n_unknown
            if n_unknown < len(unknown):
                unknown[n_unknown, 0] = labels_at
                unknown[n_unknown, 1] = labels_end
                unknown[n_unknown, 2] = end_n - n + n_others - first_other
                unknown_keys[n_unknown, 0] = first
                unknown_keys[n_unknown, 1] = second
            n_unknown += 1
        for i in range(n, min(end_n, len(slots))):
            slots[i] = mark
        for i in range(first_other, min(n_others, len(others))):
            others[i, 1] = mark
            others[i, 4] = labels_at
            others[i, 5] = labels_end
        n = end_n
    counts[N_SAMPLES] = n
    counts[N_UNKNOWN] = n_unknown
    counts[N_OTHERS] = n_others
    return OK


@inlined
def _is_metric_name(data, start, end):
    if end - start != len(_METRIC_NAME):
        return False
    equal = True
    for i in range(len(_METRIC_NAME)):
        equal = equal and data[start + i] == _METRIC_NAME[i]
    return equal


@inlined
def _label(data, at, end):
    """Read a Label that is [at, end). Returns its name's range, its value's, and whether it could be read."""
    name_start = name_end = value_start = value_end = at
    while at < end:
        tag, at = get_varint(data, at, end)
        if at < 0:
            return name_start, name_end, value_start, value_end, False
        if tag == 0x0A or tag == 0x12:
            size, at = get_varint(data, at, end)
            if at < 0 or size < 0 or size > end - at:
                return name_start, name_end, value_start, value_end, False
            if tag == 0x0A:
                name_start = at
                name_end = at + size
            else:
                value_start = at
                value_end = at + size
            at += size
        elif tag >> 3 == 1 or tag >> 3 == 2:
            return name_start, name_end, value_start, value_end, False
        else:
            at = skip(data, at, end, tag)
            if at < 0:
                return name_start, name_end, value_start, value_end, False
    return name_start, name_end, value_start, value_end, True


@inlined
def _put_text(data, start, end, out, at):
    """Write a uvarint length and the bytes of a range. Returns the position behind."""
    size = end - start
    while size >= 128:
        out[at] = np.uint8(size & 127 | 128)
        size >>= 7
        at += 1
    out[at] = np.uint8(size)
    at += 1
    for i in range(start, end):
        out[at] = data[i]
        at += 1
    return at


@inlined
def _check_label(data, name_start, name_end, value_start, value_end, last_start, last_end, limits):
    """Whether a label may follow the one whose name is [last_start, last_end)."""
    if name_end == name_start:
        return EMPTY_NAME
    order = compare(data, last_start, last_end, name_start, name_end)
    if order == 0:
        return DUPLICATE_NAME
    if order > 0:
        return UNSORTED
    if name_end - name_start > limits[1]:
        return NAME_TOO_LONG
    if value_end - value_start > limits[2]:
        return VALUE_TOO_LONG
    if not is_utf8(data, name_start, name_end):
        return NAME_NOT_UTF8
    if not is_utf8(data, value_start, value_end):
        return VALUE_NOT_UTF8
    return OK


@kernel("void(uint8[::1], int64[:, ::1], int64[::1], uint8[::1], int64[::1], int64[::1])")
def canonicalise(data, ranges, limits, out, offsets, statuses):
    """Check label sets as `walk` found them and write them as canonical labels (`common.labels`).

    ranges: int64 (n, 3), start and end of the label fields of each in `data`; the third column is not used.
    limits: int64 (3,), most labels of a series, most bytes of a name, most bytes of a value.
    out: uint8, at least as long as all ranges together. offsets: int64 (n + 1,). Canonical set i is written to
        out[offsets[i] : offsets[i + 1]].
    statuses: int64 (n,), written: OK, MALFORMED, or the first fault; the set is then empty.
    """
    offsets[0] = 0
    written = np.int64(0)
    for i in range(len(ranges)):
        at = ranges[i, 0]
        end = ranges[i, 1]
        status = LABELS_TOO_LONG if end - at > MAX_HASHED_BYTES else OK
        last_start = np.int64(0)
        last_end = np.int64(0)
        n_labels = 0
        has_metric_name = False
        while at < end:
            # `walk` has read tag and length and found them to lie in the message.
            _, at = get_varint(data, at, end)
            size, at = get_varint(data, at, end)
            name_start, name_end, value_start, value_end, readable = _label(data, at, at + size)
            at += size
            if not readable:
                status = MALFORMED
                break
            if status != OK:
                # The rest is read only to find out whether it is a message at all.
                continue
            status = _check_label(data, name_start, name_end, value_start, value_end, last_start, last_end, limits)
            last_start = name_start
            last_end = name_end
            n_labels += 1
            if status == OK and n_labels > limits[0]:
                status = TOO_MANY_LABELS
            if status == OK and value_end > value_start:
                has_metric_name = has_metric_name or _is_metric_name(data, name_start, name_end)
                written = _put_text(data, name_start, name_end, out, written)
                written = _put_text(data, value_start, value_end, out, written)
        if status == OK and not has_metric_name:
            status = NO_METRIC_NAME
        if status != OK:
            written = offsets[i]
        offsets[i + 1] = written
        statuses[i] = status
