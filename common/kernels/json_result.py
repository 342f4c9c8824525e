"""Samples as JSON text in Prometheus' form: `[[1435781430,"1"],[1435781445.001,"0.5"]]`."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, kernel
from common.kernels.shortest import shortest

POINT_BYTES = 64
"""Upper limit of the text of one point: 26 of time, 25 of value, punctuation."""
_TIMES = 1024
"""Times whose text is remembered: all series of a matrix have the same."""
_TIME_BYTES = 26
_0, _10, _100 = (np.uint64(n) for n in (0, 10, 100))
_SIGN = np.uint64(1 << 63)
_PAIRS = np.frombuffer("".join(f"{n:02}" for n in range(100)).encode(), dtype=np.uint8).copy()


@device
def count_digits(value):
    """Of a uint64 in decimal, at most 20."""
    digits = 1
    while value >= _100:
        value //= _100
        digits += 2
    return digits + 1 if value >= _10 else digits


@device
def write_digits(out, at, value, n):
    """Write a uint64 of n digits in decimal; returns the position behind it."""
    place = at + n
    while value >= _100:
        rest = value // _100
        pair = 2 * np.int64(value - rest * _100)
        place -= 2
        out[place] = _PAIRS[pair]
        out[place + 1] = _PAIRS[pair + 1]
        value = rest
    if value >= _10:
        pair = 2 * np.int64(value)
        out[place - 2] = _PAIRS[pair]
        out[place - 1] = _PAIRS[pair + 1]
    else:
        out[place - 1] = np.uint8(48 + np.int64(value))
    return at + n


@device
def write_time(out, at, time_ms):
    """Seconds, with three decimals only where there are milliseconds."""
    if time_ms < 0:
        out[at] = 45
        at += 1
        if time_ms == -9223372036854775808:
            time_ms += 1  # has no positive twin; one millisecond off after 292 million years
        time_ms = -time_ms
    seconds = np.uint64(time_ms // 1000)
    at = write_digits(out, at, seconds, count_digits(seconds))
    fraction = time_ms % 1000
    if fraction != 0:
        out[at] = 46
        out[at + 1] = 48 + fraction // 100
        out[at + 2] = 48 + fraction // 10 % 10
        out[at + 3] = 48 + fraction % 10
        at += 4
    return at


@device
def write_decimal(out, at, digits, exponent):
    """Write digits · 10^exponent as Go does: plain for 1e-6 <= v < 1e21, else with an exponent."""
    while True:
        rest = digits // _10
        if digits != rest * _10:
            break
        digits = rest
        exponent += 1
    n = count_digits(digits)
    point = n + exponent  # position of the decimal point relative to the first digit
    if point > 21 or point < -5:
        # The first digit is moved to the left of the point afterwards.
        end = write_digits(out, at + 1, digits, n)
        out[at] = out[at + 1]
        out[at + 1] = 46
        at = end if n > 1 else at + 1
        exponent = point - 1
        out[at] = 101
        out[at + 1] = 45 if exponent < 0 else 43
        at += 2
        exponent = abs(exponent)
        if exponent < 10:
            out[at] = 48
            at += 1
        size = np.uint64(exponent)
        return write_digits(out, at, size, count_digits(size))
    if point <= 0:
        out[at] = 48
        out[at + 1] = 46
        at += 2
        for _ in range(-point):
            out[at] = 48
            at += 1
        return write_digits(out, at, digits, n)
    if point >= n:
        at = write_digits(out, at, digits, n)
        for _ in range(point - n):
            out[at] = 48
            at += 1
        return at
    end = write_digits(out, at + 1, digits, n)
    for k in range(point):
        out[at + k] = out[at + k + 1]
    out[at + point] = 46
    return end


@device
def write_value(out, at, value, bits):
    """Write a float64 of these bits; returns the position behind it."""
    if value != value:
        out[at] = 78
        out[at + 1] = 97
        out[at + 2] = 78
        return at + 3
    negative = bits & _SIGN != _0
    size = abs(value)
    if size == np.inf:
        out[at] = 45 if negative else 43
        out[at + 1] = 73
        out[at + 2] = 110
        out[at + 3] = 102
        return at + 4
    if negative:
        out[at] = 45
        at += 1
    if size < 1e15:
        whole = np.uint64(size)
        if np.float64(whole) == size:
            return write_digits(out, at, whole, count_digits(whole))
        # No two decimals of up to 15 digits are the same float, so that one of these that is, is the shortest.
        if size < 1e12:
            scaled = np.rint(size * 1000.0)
            if scaled / 1000.0 == size:
                return write_decimal(out, at, np.uint64(scaled), -3)
    digits, exponent = shortest(bits & ~_SIGN)
    return write_decimal(out, at, digits, exponent)


@kernel("int64(int64[::1], int64[::1], float64[::1], uint64[::1], uint8[::1], int64[::1])")
def write_points(offsets, timestamps, values, bits, out, ends):
    """Write the points of every row one after another, without the brackets around a row.

    offsets: int64 (n_rows + 1,) into timestamps and values. bits: the values as uint64.
    out: uint8, POINT_BYTES a point. ends: int64 (n_rows,), set to the end of each row's text.
    Returns the length of the text.
    """
    known = np.zeros(_TIMES, dtype=np.int64)
    sizes = np.zeros(_TIMES, dtype=np.int64)
    texts = np.empty((_TIMES, _TIME_BYTES), dtype=np.uint8)
    at = 0
    for row in range(offsets.size - 1):
        for i in range(offsets[row], offsets[row + 1]):
            if i > offsets[row]:
                out[at] = 44
                at += 1
            out[at] = 91
            at += 1
            slot = (i - offsets[row]) % _TIMES
            if sizes[slot] == 0 or known[slot] != timestamps[i]:
                known[slot] = timestamps[i]
                sizes[slot] = write_time(texts[slot], 0, timestamps[i])
            for k in range(sizes[slot]):
                out[at + k] = texts[slot, k]
            at += sizes[slot]
            out[at] = 44
            out[at + 1] = 34
            at = write_value(out, at + 2, values[i], bits[i])
            out[at] = 34
            out[at + 1] = 93
            at += 2
        ends[row] = at
    return at
