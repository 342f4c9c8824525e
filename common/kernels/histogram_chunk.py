"""Native histograms as Prometheus' chunks, from the bytes that Tabor stores (`docs/format/histogram.md`).

All histograms of a chunk have the buckets of its first one, so a chunk ends where they change. A chunk of counters
also ends where one begins anew, for its reader takes all but the first histogram to go on from the one before.

Source: `histogram.go`, `float_histogram.go` and `histogram_meta.go` of Prometheus' `tsdb/chunkenc`.
"""

from __future__ import annotations

import numpy as np

from common.kernels.bits import NO_WINDOW, put_bits, put_varbit_int, put_varbit_uint, put_xor
from common.kernels.jit import device
from common.kernels.native_decode import CUSTOM, LARGEST_INDEX, double, signed, unsigned

HISTOGRAM_BYTES = 128
BYTES_PER_BYTE = 10
"""A chunk takes at most HISTOGRAM_BYTES for each histogram and that many for each byte of theirs."""
HEADER_BITS = 24

_STALE_BITS = np.int64(0x7FF0000000000002)
_SMALLEST = 3 + 8
_IS_FLOAT = 4
_HINTS = 3
_RESET, _NOT_RESET, _GAUGE = 1, 2, 3
# The shortest code for a bound is for whole thousandths; above this they are longer than the bound itself.
_LONGEST_BOUND = 33554430.0

# What is known of a histogram that was taken apart: flags, schema, where its parts begin and end, its buckets.
_FLAGS, _SCHEMA, _PARTS, _N_POSITIVE, _N_NUMBERS, N_FACTS = 0, 1, 2, 12, 13, 14
# Parts that make up its layout, as bytes.
_THRESHOLD, _POSITIVE, _NEGATIVE, _BOUNDS = 0, 1, 2, 3
_N_LAYOUT = 4
# Its numbers: these, then the positive and then the negative buckets.
_COUNT, _ZEROS, _SUM, _N_SCALARS = 0, 1, 2, 3


@device
def _bits(data, at):
    value = np.uint64(0)
    for i in range(8):
        value |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return np.int64(value)


@device
def _number(data, at, end, is_float):
    """(bits of a count, what follows); -1 for what follows where there is none."""
    if not is_float:
        return (np.int64(0), np.int64(-1)) if at < 0 else unsigned(data, at, end)
    if at < 0 or end - at < 8:
        return np.int64(0), np.int64(-1)
    return _bits(data, at), at + 8


@device
def _side(data, at, end, is_float, part, facts, numbers, n):
    """Read the spans of one side, which are part of the layout, and its buckets. Returns n and what follows."""
    if at < 0:
        return n, np.int64(-1)
    facts[_PARTS + 2 * part] = at
    n_spans, at = unsigned(data, at, end)
    if at < 0 or n_spans < 0 or n_spans * 2 > end - at:
        return n, np.int64(-1)
    total = np.int64(0)
    for _ in range(n_spans):
        offset, at = signed(data, at, end)
        if at < 0 or offset > LARGEST_INDEX or offset < -LARGEST_INDEX:
            return n, np.int64(-1)
        length, at = unsigned(data, at, end)
        if at < 0 or length < 0 or length > end - at:
            return n, np.int64(-1)
        total += length
    if total > end - at:
        return n, np.int64(-1)
    facts[_PARTS + 2 * part + 1] = at
    for _ in range(total):
        if is_float:
            numbers[n], at = _number(data, at, end, True)
        else:
            numbers[n], at = signed(data, at, end)
        if at < 0:
            return n, np.int64(-1)
        n += 1
    return n, at


@device
def _read(data, at, end, facts, numbers):
    """Take a histogram apart. Returns whether it is one.

    numbers: int64, room for one a byte and _N_SCALARS; counts of floats as their bits, of integers the buckets as
    differences, each to the bucket before.
    """
    if at < 0 or end > len(data) or end - at < _SMALLEST:
        return False
    is_float = (data[at] & _IS_FLOAT) != 0
    facts[:] = 0
    facts[_FLAGS] = np.int64(data[at])
    schema = np.int64(data[at + 1])
    facts[_SCHEMA] = schema - 256 if schema > 127 else schema
    numbers[_SUM] = _bits(data, at + 2)
    numbers[_COUNT], at = _number(data, at + 10, end, is_float)
    numbers[_ZEROS] = 0
    n = np.int64(_N_SCALARS)
    custom = facts[_SCHEMA] == CUSTOM
    if not custom:
        if at < 0 or end - at < 8:
            return False
        facts[_PARTS + 2 * _THRESHOLD] = at
        facts[_PARTS + 2 * _THRESHOLD + 1] = at + 8
        numbers[_ZEROS], at = _number(data, at + 8, end, is_float)
    n, at = _side(data, at, end, is_float, _POSITIVE, facts, numbers, n)
    facts[_N_POSITIVE] = n - _N_SCALARS
    if not custom:
        n, at = _side(data, at, end, is_float, _NEGATIVE, facts, numbers, n)
    elif at >= 0:
        facts[_PARTS + 2 * _BOUNDS] = at
        size, at = unsigned(data, at, end)
        if at < 0 or size < 0 or size > (end - at) // 8:
            return False
        at += 8 * size
        facts[_PARTS + 2 * _BOUNDS + 1] = at
    facts[_N_NUMBERS] = n
    return at == end


@device
def _same_layout(data, one, other):
    """Whether two histograms can be in one chunk."""
    if one[_SCHEMA] != other[_SCHEMA] or (one[_FLAGS] ^ other[_FLAGS]) & _IS_FLOAT:
        return False
    if (one[_FLAGS] & _HINTS == _GAUGE) != (other[_FLAGS] & _HINTS == _GAUGE):
        return False
    for part in range(_N_LAYOUT):
        a, b = one[_PARTS + 2 * part], other[_PARTS + 2 * part]
        size = one[_PARTS + 2 * part + 1] - a
        if size != other[_PARTS + 2 * part + 1] - b:
            return False
        for i in range(size):
            if data[a + i] != data[b + i]:
                return False
    return True


@device
def _begins_anew(facts, numbers, before):
    """Whether a counter of the same layout as the one before has begun anew: something in it became less."""
    hint = facts[_FLAGS] & _HINTS
    if hint == _GAUGE:
        return False
    if hint == _RESET:
        return True
    is_float = facts[_FLAGS] & _IS_FLOAT
    values, old_values = numbers.view(np.float64), before.view(np.float64)
    count = old_count = np.int64(0)
    for i in range(facts[_N_NUMBERS]):
        if i == _SUM:
            continue
        # Buckets of integers are differences, each to the one before of the same side.
        if i == _N_SCALARS or i == _N_SCALARS + facts[_N_POSITIVE]:
            count = old_count = np.int64(0)
        count += numbers[i]
        old_count += before[i]
        is_less = count < old_count
        if is_float:
            is_less = values[i] < old_values[i]
        elif i < _SUM:
            is_less = np.uint64(numbers[i]) < np.uint64(before[i])
        if is_less:
            return True
    return False


@device
def _put_threshold(out, at, bits):
    """The usual thresholds, powers of two, take one byte."""
    exponent = np.int64(bits >> np.uint64(52))
    short, width = np.uint64(255), 64
    if bits << np.uint64(1) == np.uint64(0):
        short, width = np.uint64(0), 0
    # 2^-243 to 2^10, whose biased exponents are these.
    elif bits << np.uint64(12) == np.uint64(0) and 780 <= exponent <= 1033:
        short, width = np.uint64(exponent - 779), 0
    return put_bits(out, put_bits(out, at, short, 8), bits, width)


@device
def _put_spans(data, start, end, out, at):
    if end == start:
        return put_varbit_uint(out, at, np.uint64(0))
    n_spans, start = unsigned(data, start, end)
    at = put_varbit_uint(out, at, np.uint64(n_spans))
    for _ in range(n_spans):
        offset, start = signed(data, start, end)
        length, start = unsigned(data, start, end)
        at = put_varbit_int(out, put_varbit_uint(out, at, np.uint64(length)), offset)
    return at


@device
def _put_bounds(data, start, end, out, at):
    n, start = unsigned(data, start, end)
    at = put_varbit_uint(out, at, np.uint64(n))
    for _ in range(n):
        bits = np.uint64(_bits(data, start))
        bound, start = double(data, start, end)
        rounded = np.floor(bound * 1000.0 + 0.5)
        if bits >> np.uint64(63) or bound * 1000.0 > _LONGEST_BOUND or rounded / 1000.0 != bound:
            at = put_bits(out, put_bits(out, at, np.uint64(0), 1), bits, 64)
        else:
            at = put_varbit_uint(out, at, np.uint64(rounded) + np.uint64(1))
    return at


@device
def _put_first(data, time, facts, numbers, is_reset, out):
    """Begin a chunk with this histogram. Returns the position behind it."""
    hint = facts[_FLAGS] & _HINTS
    header = 0
    if hint == _GAUGE:
        header = 0b11000000
    elif is_reset or hint == _RESET:
        header = 0b10000000
    elif hint == _NOT_RESET:
        header = 0b01000000
    at = put_bits(out, 16, np.uint64(header), 8)
    part = facts[_PARTS : _PARTS + 2 * _N_LAYOUT]
    threshold = np.uint64(0)
    if facts[_SCHEMA] != CUSTOM:
        threshold = np.uint64(_bits(data, part[2 * _THRESHOLD]))
    at = put_varbit_int(out, _put_threshold(out, at, threshold), facts[_SCHEMA])
    at = _put_spans(data, part[2 * _POSITIVE], part[2 * _POSITIVE + 1], out, at)
    at = _put_spans(data, part[2 * _NEGATIVE], part[2 * _NEGATIVE + 1], out, at)
    if facts[_SCHEMA] == CUSTOM:
        at = _put_bounds(data, part[2 * _BOUNDS], part[2 * _BOUNDS + 1], out, at)
    at = put_varbit_int(out, at, time)
    for i in range(facts[_N_NUMBERS]):
        if i == _SUM or facts[_FLAGS] & _IS_FLOAT:
            at = put_bits(out, at, np.uint64(numbers[i]), 64)
        elif i < _SUM:
            at = put_varbit_uint(out, at, np.uint64(numbers[i]))
        else:
            at = put_varbit_int(out, at, numbers[i])
    return at


@device
def _put_next(facts, numbers, before, steps, windows, out, at):
    """Append the numbers of a histogram of the same layout as the one before. Returns the position behind them."""
    is_float = facts[_FLAGS] & _IS_FLOAT
    for i in range(facts[_N_NUMBERS]):
        if i == _SUM or is_float:
            bits, old_bits = np.uint64(numbers[i]), np.uint64(before[i])
            at, windows[0, i], windows[1, i] = put_xor(out, at, bits, old_bits, windows[0, i], windows[1, i])
        else:
            step = numbers[i] - before[i]
            at = put_varbit_int(out, at, step - steps[i])
            steps[i] = step
    return at


@device
def room_for_histograms(largest):
    """Scratch for histograms of at most that many bytes: facts and numbers of two, steps, windows."""
    n = largest + _N_SCALARS
    return (
        np.zeros((2, N_FACTS), np.int64),
        np.zeros((2, n), np.int64),
        np.zeros(n, np.int64),
        np.zeros((2, n), np.int64),
    )


@device
def put_histograms(data, offsets, row, timestamps, first, last, is_reset, room, out):
    """Encode those of the samples [first, last) that fit into one chunk; histogram `row` is the first one.

    is_reset: whether it is known to begin anew. Returns (the sample behind them, bits written, whether that sample
    begins anew); there are none if one is no histogram.
    """
    steps, windows = room[2], room[3]
    steps[:] = 0
    windows[0] = NO_WINDOW
    windows[1] = 0
    anew = False
    step = np.int64(0)
    at = np.int64(HEADER_BITS)
    k = first
    while k < last:
        own, other = (k - first) & 1, (k - first + 1) & 1
        facts, numbers = room[0][own], room[1][own]
        i = row + k - first
        if not _read(data, offsets[i], offsets[i + 1], facts, numbers):
            return first, np.int64(0), False
        if k == first:
            at = _put_first(data, timestamps[k], facts, numbers, is_reset, out)
        else:
            before = room[1][other]
            stale = numbers[_SUM] == _STALE_BITS or before[_SUM] == _STALE_BITS
            # Readers do not look for buckets of a stale histogram unless it is the first.
            if stale or not _same_layout(data, facts, room[0][other]):
                break
            anew = _begins_anew(facts, numbers, before)
            if anew:
                break
            old_step, step = step, timestamps[k] - timestamps[k - 1]
            at = put_varbit_int(out, at, step - old_step)
            at = _put_next(facts, numbers, before, steps, windows, out, at)
        k += 1
    put_bits(out, 0, np.uint64(k - first), 16)
    return k, at, anew
