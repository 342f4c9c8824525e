"""Native histograms from bytes (`docs/format/histogram.md`) to the columns of `common.histograms.Histograms`."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import inlined, kernel

CUSTOM = -53
NEGATIVE_KEY = -(1 << 40)
LARGEST_INDEX = 1 << 31
TWO_TO_64 = 18446744073709551616.0
_SMALLEST = 3 + 8
"""Bytes of flags, schema, sum and the shortest count."""


@inlined
def unsigned(data, at, end):
    """(value, what follows) with the value's bits in an int64; -1 for what follows where there is none."""
    value = np.int64(0)
    shift = 0
    while at < end and shift < 64:
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            # Of the tenth byte only one bit fits.
            return (value, at) if shift < 63 or byte < 2 else (np.int64(0), np.int64(-1))
        shift += 7
    return np.int64(0), np.int64(-1)


@inlined
def signed(data, at, end):
    value, at = unsigned(data, at, end)
    return ((value >> 1) & 0x7FFFFFFFFFFFFFFF) ^ -(value & 1), at


@inlined
def double(data, at, end):
    if at < 0 or at + 8 > end:
        return np.nan, -1
    return data[at : at + 8].view(np.float64)[0], at + 8


@inlined
def number(data, at, end, is_float):
    """A count."""
    if is_float:
        return double(data, at, end)
    if at < 0:
        return 0.0, -1
    value, at = unsigned(data, at, end)
    result = float(value)
    return result + TWO_TO_64 if value < 0 else result, at


@inlined
def section(data, at, end, is_float, base, n, fill, keys, counts):
    """Buckets of one side, n being there already: (how many there are now, what follows, greatest index)."""
    greatest = np.int64(-LARGEST_INDEX)
    if at < 0:
        return n, -1, greatest
    n_spans, at = unsigned(data, at, end)
    if at < 0 or n_spans < 0 or n_spans * 2 > end - at:
        return n, -1, greatest
    spans_at = at
    total = np.int64(0)
    index = np.int64(0)
    for span in range(n_spans):
        gap, at = signed(data, at, end)
        if at < 0 or gap > LARGEST_INDEX or gap < -LARGEST_INDEX or (span > 0 and gap < 0):
            return n, -1, greatest
        length, at = unsigned(data, at, end)
        if at < 0 or length < 0 or length > end - at:
            return n, -1, greatest
        index += gap + length
        total += length
        if total > end - at or index > LARGEST_INDEX:
            return n, -1, greatest
    values_at = at
    at = spans_at
    index = np.int64(0)
    last = np.int64(0)
    for _ in range(n_spans):
        gap, at = signed(data, at, end)
        length, at = unsigned(data, at, end)
        index += gap
        for _ in range(length):
            if is_float:
                count, values_at = double(data, values_at, end)
            else:
                step, values_at = signed(data, values_at, end)
                last += step
                count = float(last)
            if values_at < 0:
                return n, -1, greatest
            if fill:
                keys[n] = index + base
                counts[n] = count
            greatest = index
            n += 1
            index += 1
    return n, values_at, greatest


@inlined
def custom_bounds(data, at, end, n, fill, bounds):
    """(how many bounds there are with this histogram's, what follows)."""
    if at < 0:
        return n, -1
    size, at = unsigned(data, at, end)
    if at < 0 or size < 0 or size > (end - at) // 8:
        return n, -1
    previous = -np.inf
    for _ in range(size):
        bound, at = double(data, at, end)
        if not (bound > previous and bound < np.inf):
            return n, -1
        if fill:
            bounds[n] = bound
        previous = bound
        n += 1
    return n, at


@kernel(
    "int64(uint8[::1], int64[::1], boolean, uint8[::1], int32[::1], float64[:, ::1], int64[::1], int64[::1],"
    " float64[::1], int64[::1], float64[::1])"
)
def decode_histograms(
    data, offsets, fill, hints, schemas, scalars, bucket_offsets, keys, counts, bound_offsets, bounds
):
    """Fill the columns; without `fill`, the two offsets only. Returns the first row that is no histogram, or -1.

    scalars: float64 (4, n): zero thresholds, zero counts, counts, sums.
    """
    n = n_bounds = np.int64(0)
    bucket_offsets[0] = bound_offsets[0] = 0
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        if at < 0 or end > len(data) or end - at < _SMALLEST or data[at] > 7:
            return row
        is_float = (data[at] & 4) != 0
        hint = data[at] & 3
        schema = np.int64(data[at + 1])
        if schema > 127:
            schema -= 256
        custom = schema == CUSTOM
        if not custom and (schema < -4 or schema > 8):
            return row
        total, at = double(data, at + 2, end)
        count, at = number(data, at, end, is_float)
        threshold = zeros = 0.0
        if not custom:
            threshold, at = double(data, at, end)
            zeros, at = number(data, at, end, is_float)
            if not threshold >= 0.0:
                return row
        # Buckets of a row ascend by key: the negative side comes first.
        positive_at = at
        if not custom:
            _, at, _ = section(data, at, end, is_float, np.int64(0), n, False, keys, counts)
            n, at, _ = section(data, at, end, is_float, np.int64(NEGATIVE_KEY), n, fill, keys, counts)
        n, after, greatest = section(data, positive_at, end, is_float, np.int64(0), n, fill, keys, counts)
        before = n_bounds
        if custom:
            n_bounds, at = custom_bounds(data, after, end, n_bounds, fill, bounds)
            if greatest > n_bounds - before:
                return row
            if n > bucket_offsets[row] and fill and keys[bucket_offsets[row]] < 0:
                return row
        if at != end or after < 0:
            return row
        bucket_offsets[row + 1] = n
        bound_offsets[row + 1] = n_bounds
        if fill:
            hints[row] = hint
            schemas[row] = schema
            scalars[0, row] = threshold
            scalars[1, row] = zeros
            scalars[2, row] = count
            scalars[3, row] = total
    return -1
